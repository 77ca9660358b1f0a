"""Check a run's robust accuracy by its witnesses, in minutes instead of days.

A sample is confirmed as not robust if the candidate misclassifies the clean image, or a witness
that lies in the eps-ball and in [0, 1]. The candidate runs once on both (as often as needed if it
is randomized), and no attack is run. The result is an upper bound: no check of witnesses can show
that a sample *is* robust.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from bench.attacks import inside
from bench.attacks.distances import norms
from bench.attacks.eight_bit import eight_bit_successes
from bench.attacks.expectation import expectation
from bench.candidates import Candidate
from bench.data import Dataset
from bench.decision import answered, classes_of
from bench.engines.prediction import (
    BEYOND_DOUBT,
    DECIDING_DRAWS,
    Purpose,
    keyed_randomness,
    leads,
)
from bench.errors import InputError
from bench.memory.out_of_memory import ImagesAtOnce
from bench.precision import tensor_cores
from bench.runs.fingerprint import fingerprint
from bench.store import RunFolder
from bench.store.kinds import kind_named
from bench.store.manifest import Manifest
from bench.store.records import Witnesses
from bench.store.same_candidate import same_answers
from bench.store.summary import AttackedSummary
from bench.suites import ThreatModel

ROUNDING = 1e-12
"""Relative, of a radius that was computed in float64."""


@dataclass(frozen=True)
class Verification:
    """The result of checking a run.

    Attributes:
        n_examples: number of samples of the run.
        claimed: robust accuracy of the run.
        confirmed: upper bound of the robust accuracy, as the witnesses prove it.
        eight_bit: the same bound with witnesses rounded to 8-bit images.
        witnesses: number of witnesses.
        witness_bytes: size of the file with the witnesses.
        failures: one line for each failed check; the claim is confirmed if there is none.
        passes: forward passes of the check, of one image each, without those for `eight_bit`.
        run_passes: forward passes and gradients of the run itself.
        seconds, run_seconds: time of the check and of the run.
    """

    n_examples: int
    claimed: float
    confirmed: float
    eight_bit: float
    witnesses: int
    witness_bytes: int
    failures: tuple[str, ...]
    passes: int
    run_passes: int
    seconds: float
    run_seconds: float

    @property
    def is_confirmed(self) -> bool:
        """Whether every check passed."""
        return not self.failures


def check_candidate(candidate: Candidate, manifest: Manifest) -> None:
    """Refuse a candidate that is not the one of a run.

    Raises:
        InputError: its weights or its definition differ.
    """
    run = f"{manifest.suite}/{manifest.candidate}@{manifest.run}"
    if candidate.weights_sha256 != manifest.weights_sha256:
        raise InputError(
            f"{run}: expected weights with SHA-256 {_digests(manifest.weights_sha256)}, got "
            f"{_digests(candidate.weights_sha256)}; name the folder that the run was made from "
            "by --candidate"
        )
    if manifest.unidentified is None:
        raise InputError(
            f"{run}: was made by an earlier version of this program, which did not record all that "
            "decides a candidate's answers; run it again with --again"
        )
    if candidate.definition_sha256 != manifest.definition_sha256:
        raise InputError(
            f"{run}: expected the candidate as it was defined then, digest "
            f"{manifest.definition_sha256[:16]!r}, got {candidate.definition_sha256[:16]!r}; its "
            "files, code, arguments or package version changed since"
        )


def check_answers(
    candidate: Candidate, manifest: Manifest, shape: tuple[int, ...], device: torch.device
) -> None:
    """Refuse a candidate whose answers differ from those when a run was made.

    Args:
        shape: (C, H, W) of an image.

    Raises:
        InputError: its answers differ, although its digests are those of the run.
    """
    if not same_answers(fingerprint(candidate, shape, device), manifest.fingerprint):
        raise InputError(
            f"{manifest.suite}/{manifest.candidate}@{manifest.run}: expected the answers that the "
            "candidate gave on the probe images when the run was made, got others, though its "
            "weights and files are the same: another version of a package, or something that it "
            "reads from elsewhere"
        )


def verify(
    folder: RunFolder,
    candidate: Candidate,
    dataset: Dataset,
    device: torch.device,
    batch_size: int = 250,
) -> Verification:
    """Run a candidate once on each witness of a run, or as often as needed if it is randomized.

    For a randomized candidate, the mean over draws that no attack has seen decides about a witness.
    The claim that a sample is wrong without attack is refuted if the label leads significantly.

    Args:
        folder: the folder of a complete run.
        candidate: the same candidate as when the run was made.
        dataset: the samples of the run.

    Raises:
        InputError: it is another candidate than the run's, or files are damaged or of another
            shape.
    """
    summary = folder.summary()
    check_candidate(candidate, summary.manifest)
    check_kind(summary.manifest)
    assert isinstance(summary, AttackedSummary)
    samples = folder.samples()
    witnesses = folder.witnesses(dataset.images.numpy(), dataset.indices.tolist())
    check_answers(candidate, summary.manifest, tuple(dataset.images.shape[1:]), device)
    place = {index: row for row, index in enumerate(dataset.indices.tolist())}
    judge = Judge(candidate, device, summary.manifest.seed, batch_size)

    start = time.perf_counter()
    failures = _contradictions(samples, summary.robust_accuracy, witnesses)
    failed, proofs = _check_clean(dataset, samples.loc[~samples["clean_correct"]], judge)
    failures += failed
    proven = eight_bit = len(proofs)
    if witnesses is not None:
        rows = torch.tensor([place[index] for index in witnesses.index.tolist()])
        clean, labels = dataset.images[rows], dataset.labels[rows]
        images = torch.from_numpy(witnesses.images)
        threat = summary.manifest.threat_model
        failed, proofs = _check_images(images, clean, labels, judge, witnesses, threat)
        failures += failed
        proven += len(proofs)
    smallest = folder.smallest()
    if smallest is not None:
        failures += _check_smallest(folder, smallest, samples, dataset, judge, summary.manifest)
    seconds, passes = time.perf_counter() - start, judge.passes
    if witnesses is not None:
        broken = eight_bit_successes(
            images,
            clean,
            labels,
            judge.classes,
            threat.norm,
            threat.eps,
        )
        eight_bit += int(broken.sum())
    n = summary.n_examples
    return Verification(
        n_examples=n,
        claimed=summary.robust_accuracy,
        confirmed=1 - proven / n,
        eight_bit=1 - eight_bit / n,
        witnesses=0 if witnesses is None else len(witnesses.index),
        witness_bytes=folder.witness_bytes,
        failures=tuple(failures),
        passes=passes,
        run_passes=sum(done.forward_passes + done.backward_passes for done in summary.attacks) + n,
        seconds=seconds,
        run_seconds=summary.seconds,
    )


def check_kind(manifest: Manifest) -> None:
    """Refuse a run whose robust accuracy does not rest on witnesses.

    Raises:
        InputError: the run is of such a kind.
    """
    if not kind_named(manifest.kind).has_witnesses:
        raise InputError(
            f"expected a run that attacked, got a {manifest.kind}: it has no witness of what it "
            "claims; name another run by @RUN, see `bench show`"
        )


def _contradictions(
    samples: pd.DataFrame, claimed: float, witnesses: Witnesses | None
) -> list[str]:
    """Return where the run's own tables disagree."""
    failures = []
    counted = float(samples["robust"].mean())
    if abs(counted - claimed) > 1e-12:
        failures.append(
            f"run.json says robust accuracy {100 * claimed:.2f}%, samples.parquet counts "
            f"{100 * counted:.2f}%"
        )
    broken = samples.loc[samples["clean_correct"] & ~samples["robust"], "index"].tolist()
    proofs = set() if witnesses is None else set(witnesses.index.tolist())
    failures += [
        f"sample {index}: broken, but without a witness" for index in broken if index not in proofs
    ]
    return failures


class Judge:
    """A candidate that predicts in full float32, also on a GPU, as when witnesses are confirmed.

    Attributes:
        passes: forward passes so far, of one image each, without those of `classes`.
    """

    def __init__(
        self, candidate: Candidate, device: torch.device, seed: int, batch_size: int
    ) -> None:
        self.module = candidate.module.to(device)
        self.randomized = candidate.randomized
        self.device = device
        self.seed = seed
        self.batch_size = batch_size
        self.passes = 0

    def leads(self, images: Tensor, labels: Tensor, predictions: Tensor) -> Tensor:
        """Return by how much the candidate prefers another class to the labels (n,).

        For images (n, C, H, W) it is the highest other logit minus the label's, and infinite where
        the logits are not finite. For a randomized candidate it is the difference of the recorded
        prediction (n,) and the label, in standard errors.
        """

        def ask(some: Tensor, theirs: Tensor, recorded: Tensor) -> Tensor:
            if self.randomized:
                lead, draws = leads(self.module, some, recorded, theirs, least=-BEYOND_DOUBT)
                self.passes += int(draws.sum())
                return lead
            self.passes += len(some)
            logits: Tensor = self.module(some)
            # The difference of very large logits can overflow float32.
            precise = logits.double()
            own = precise.gather(1, theirs[:, None]).squeeze(1)
            others = precise.scatter(1, theirs[:, None], float("-inf")).max(dim=1)[0]
            # The candidate predicts the first of several tied classes.
            is_wrong = classes_of(logits) != theirs
            lead = torch.where(
                is_wrong, (others - own).clamp_min(torch.finfo(own.dtype).tiny), others - own
            )
            # Logits that are not finite count as wrong by an infinite margin.
            return torch.where(answered(logits), lead, float("inf"))

        return self._in_batches(ask, images, labels, predictions)

    def classes(self, images: Tensor) -> Tensor:
        """Return the classes (n,) of images (n, C, H, W), `NO_CLASS` where there is none."""
        model = expectation(self.module, DECIDING_DRAWS) if self.randomized else self.module
        return self._in_batches(lambda some: classes_of(model(some)), images)

    def _in_batches(self, ask: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        def answer(part: Tensor) -> Tensor:
            # Indexing copies: a candidate may change its input in place.
            return ask(*(each[part].to(self.device) for each in inputs)).cpu()

        at_once = ImagesAtOnce(self.batch_size)
        with (
            torch.no_grad(),
            tensor_cores(False),
            keyed_randomness(self.device, self.seed, Purpose.VERIFICATION, len(inputs[0])),
        ):
            answers = at_once.in_parts(torch.arange(len(inputs[0])), answer)
        return torch.cat(answers)


def _check_clean(
    dataset: Dataset, wrong: pd.DataFrame, judge: Judge
) -> tuple[list[str], list[int]]:
    """Check the samples that are wrong without attack by the records; as `_check_images`."""
    place = {index: row for row, index in enumerate(dataset.indices.tolist())}
    indices = wrong["index"].tolist()
    if not indices:
        return [], []
    rows = torch.tensor([place[index] for index in indices])
    predictions = torch.tensor(wrong["clean_prediction"].tolist())
    lead = judge.leads(dataset.images[rows], dataset.labels[rows], predictions)
    is_right = lead <= (-BEYOND_DOUBT if judge.randomized else 0)
    failures, proofs = [], []
    for index, refuted in zip(indices, is_right.tolist(), strict=True):
        if refuted:
            failures.append(
                f"sample {index}: recorded as wrong without attack, but classified correctly"
            )
        else:
            proofs.append(index)
    return failures, proofs


def _check_images(
    images: Tensor,
    clean: Tensor,
    labels: Tensor,
    judge: Judge,
    witnesses: Witnesses,
    threat: ThreatModel,
) -> tuple[list[str], list[int]]:
    """Return failures, and the data-set indices of the samples proven not to be robust."""
    good = inside(images, clean, threat.norm, threat.eps)
    lead = judge.leads(images, labels, torch.from_numpy(witnesses.prediction))
    distance = norms((images.double() - clean.double()).flatten(1), threat.norm)
    failures, proofs = [], []
    for row, index in enumerate(witnesses.index.tolist()):
        name = f"sample {index}, witness of {witnesses.attack[row]}"
        if not good[row]:
            low, high = float(images[row].min()), float(images[row].max())
            failures.append(
                f"{name}: expected an image in [0, 1] within {threat.norm} {threat.eps:.8g}, got "
                f"distance {float(distance[row]):.8g} and values in [{low:.8g}, {high:.8g}]"
            )
        elif lead[row] <= 0:
            unit = "standard errors" if judge.randomized else "of the logits"
            failures.append(
                f"{name}: the candidate is right on it, by a margin of {-float(lead[row]):.3g} "
                f"{unit}"
            )
        else:
            proofs.append(index)
    return failures, proofs


def _check_smallest(
    folder: RunFolder,
    smallest: pd.DataFrame,
    samples: pd.DataFrame,
    dataset: Dataset,
    judge: Judge,
    manifest: Manifest,
) -> list[str]:
    """Check the smallest known perturbations: their images, their radii, and the table itself."""
    threat = manifest.threat_model
    radius = dict(zip(smallest["index"].tolist(), smallest["radius"].tolist(), strict=True))
    robust = set(samples.loc[samples["robust"], "index"].tolist())
    failures = [
        f"sample {index}: {'stood' if index in robust else 'wrong at'} {threat.eps:.8g}, but its "
        f"smallest known perturbation is {radius.get(index, float('nan')):.8g}"
        for index in samples["index"].tolist()
        if (radius.get(index, float("nan")) <= threat.eps) != (index not in robust)
    ]
    found = folder.smallest_images(dataset.images.numpy(), dataset.indices.tolist())
    proofs = set() if found is None else set(found.index.tolist())
    failures += [
        f"sample {index}: a smallest perturbation of {value:.8g}, but without its image"
        for index, value in radius.items()
        if 0 < value < float("inf") and index not in proofs
    ]
    if found is None:
        return failures
    place = {index: row for row, index in enumerate(dataset.indices.tolist())}
    rows = torch.tensor([place[index] for index in found.index.tolist()])
    images, clean = torch.from_numpy(found.images), dataset.images[rows]
    lead = judge.leads(images, dataset.labels[rows], torch.from_numpy(found.prediction))
    for row, index in enumerate(found.index.tolist()):
        name = f"sample {index}, smallest perturbation, of {found.attack[row]}"
        claimed = radius.get(index, float("nan"))
        image, centre = images[row : row + 1], clean[row : row + 1]
        if not bool(inside(image, centre, threat.norm, claimed * (1 + ROUNDING))):
            failures.append(
                f"{name}: expected an image in [0, 1] within {threat.norm} {claimed:.8g}, got "
                f"distance {float(norms((image.double() - centre.double()), threat.norm)):.8g}"
            )
        elif lead[row] <= 0:
            failures.append(
                f"{name}: the candidate is right on it, by a margin of {-float(lead[row]):.3g}"
            )
    return failures


def _digests(digests: dict[str, str]) -> str:
    return ", ".join(f"{name} {digest[:16]}..." for name, digest in digests.items()) or "(none)"
