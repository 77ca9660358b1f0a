"""Check a run's robust accuracy by its witnesses, in minutes instead of days.

A sample is confirmed as not robust if the candidate misclassifies the clean image, or a witness
that lies in the eps-ball and in [0, 1]; where it raises an error it has no answer, which is wrong.
The candidate runs once on both (as often as needed if it is randomized), and no attack is run. The
result is an upper bound: no check of witnesses can show that a sample *is* robust.
"""

from __future__ import annotations

import time
from collections.abc import Set
from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor

from bench.attacks import inside
from bench.attacks.distances import norms
from bench.attacks.eight_bit import eight_bit_successes
from bench.candidates import Candidate
from bench.data import Dataset
from bench.engines.prediction import BEYOND_DOUBT
from bench.errors import InputError
from bench.flags.failures import failed_indices
from bench.runs.fingerprint import fingerprint
from bench.runs.witness_judge import Judge
from bench.store import RunFolder
from bench.store.kinds import kind_named
from bench.store.manifest import Manifest
from bench.store.records import Witnesses
from bench.store.same_candidate import same_answers
from bench.store.summary import AttackedSummary
from bench.store.tables import Tables
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
        unconfirmed: number of samples on which the candidate raised an error during the run, and
            that nothing proves not to be robust.
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
    unconfirmed: int
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
    manifest = summary.manifest
    check_candidate(candidate, manifest)
    check_kind(manifest)
    assert isinstance(summary, AttackedSummary)
    tables = folder.tables(dataset.images.numpy(), dataset.indices.tolist())
    check_answers(candidate, manifest, tuple(dataset.images.shape[1:]), device)
    failed = _failed(summary, tables)
    judge = Judge(candidate, device, manifest.seed, batch_size, len(failed))
    threat = manifest.threat_model
    found = None if tables.witnesses is None else _beside_clean(tables.witnesses, dataset)

    start = time.perf_counter()
    failures = _contradictions(tables, summary.robust_accuracy, failed)
    refuted, wrong = _check_clean(dataset, tables.samples, judge, failed)
    failures += refuted
    broken: list[int] = []
    if found is not None:
        refuted, broken = _check_images(found, judge, threat)
        failures += refuted
    if tables.smallest is not None:
        failures += _check_smallest(tables.smallest, tables, dataset, judge, threat, failed)
    seconds, passes = time.perf_counter() - start, judge.passes
    proven = {*wrong, *broken}
    eight_bit = {*wrong, *([] if found is None else _broken_in_eight_bit(found, judge, threat))}
    n = summary.n_examples
    return Verification(
        n_examples=n,
        claimed=summary.robust_accuracy,
        confirmed=1 - len(proven) / n,
        eight_bit=1 - len(eight_bit) / n,
        witnesses=0 if found is None else len(found.records.index),
        witness_bytes=folder.witness_bytes,
        failures=tuple(failures),
        unconfirmed=len(failed - proven),
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


def _failed(summary: AttackedSummary, tables: Tables) -> Set[int]:
    """Return the samples that count as not robust because the candidate raised an error on them."""
    robust = tables.samples.loc[tables.samples["robust"], "index"].tolist()
    return set(failed_indices(summary, tables)).difference(robust)


def _contradictions(tables: Tables, claimed: float, failed: Set[int]) -> list[str]:
    """Return where the run's own tables disagree; the samples in `failed` need no witness."""
    failures = []
    samples = tables.samples
    counted = float(samples["robust"].mean())
    if abs(counted - claimed) > 1e-12:
        failures.append(
            f"run.json says robust accuracy {100 * claimed:.2f}%, samples.parquet counts "
            f"{100 * counted:.2f}%"
        )
    broken = samples.loc[samples["clean_correct"] & ~samples["robust"], "index"].tolist()
    proofs = set() if tables.witnesses is None else set(tables.witnesses.index.tolist())
    failures += [
        f"sample {index}: broken, but without a witness"
        for index in broken
        if index not in proofs and index not in failed
    ]
    return failures


class _Found(NamedTuple):
    """Adversarial images of a run beside their clean ones.

    Attributes:
        records: of the images.
        images, clean: (n, C, H, W).
        labels: (n,).
    """

    records: Witnesses
    images: Tensor
    clean: Tensor
    labels: Tensor

    def leads(self, judge: Judge) -> Tensor:
        """Return by how much the candidate prefers another class on each image (n,)."""
        return judge.leads(self.images, self.labels, torch.from_numpy(self.records.prediction))


def _beside_clean(records: Witnesses, dataset: Dataset) -> _Found:
    rows = _rows(dataset, records.index.tolist())
    images = torch.from_numpy(records.images)
    return _Found(records, images, dataset.images[rows], dataset.labels[rows])


def _rows(dataset: Dataset, indices: list[int]) -> Tensor:
    place = {index: row for row, index in enumerate(dataset.indices.tolist())}
    return torch.tensor([place[index] for index in indices])


def _check_clean(
    dataset: Dataset, samples: pd.DataFrame, judge: Judge, failed: Set[int]
) -> tuple[list[str], list[int]]:
    """Check the samples that are wrong without attack by the records; as `_check_images`.

    The samples in `failed` had no answer; if they have the right one now, that is no failure.
    """
    wrong = samples.loc[~samples["clean_correct"]]
    indices = wrong["index"].tolist()
    if not indices:
        return [], []
    rows = _rows(dataset, indices)
    predictions = torch.tensor(wrong["clean_prediction"].tolist())
    lead = judge.leads(dataset.images[rows], dataset.labels[rows], predictions)
    is_right = lead <= (-BEYOND_DOUBT if judge.randomized else 0)
    failures, proofs = [], []
    for index, refuted in zip(indices, is_right.tolist(), strict=True):
        if not refuted:
            proofs.append(index)
        elif index not in failed:
            failures.append(
                f"sample {index}: recorded as wrong without attack, but classified correctly"
            )
    return failures, proofs


def _check_images(found: _Found, judge: Judge, threat: ThreatModel) -> tuple[list[str], list[int]]:
    """Return failures, and the data-set indices of the samples proven not to be robust."""
    witnesses, images, clean, _ = found
    good = inside(images, clean, threat.norm, threat.eps)
    lead = found.leads(judge)
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
    smallest: pd.DataFrame,
    tables: Tables,
    dataset: Dataset,
    judge: Judge,
    threat: ThreatModel,
    failed: Set[int],
) -> list[str]:
    """Check the smallest known perturbations: their images, their radii, and the table itself.

    Of the samples in `failed` none need be known.
    """
    samples = tables.samples
    radius = dict(zip(smallest["index"].tolist(), smallest["radius"].tolist(), strict=True))
    robust = set(samples.loc[samples["robust"], "index"].tolist())
    failures = [
        f"sample {index}: {'survived' if index in robust else 'wrong at'} {threat.eps:.8g}, but "
        f"its smallest known perturbation is {radius.get(index, float('nan')):.8g}"
        for index in samples["index"].tolist()
        if index not in failed
        and (radius.get(index, float("nan")) <= threat.eps) != (index not in robust)
    ]
    known = tables.smallest_images
    proofs = set() if known is None else set(known.index.tolist())
    failures += [
        f"sample {index}: a smallest perturbation of {value:.8g}, but without its image"
        for index, value in radius.items()
        if 0 < value < float("inf") and index not in proofs
    ]
    if known is None:
        return failures
    found = _beside_clean(known, dataset)
    lead = found.leads(judge)
    for row, index in enumerate(known.index.tolist()):
        name = f"sample {index}, smallest perturbation, of {known.attack[row]}"
        claimed = radius.get(index, float("nan"))
        image, centre = found.images[row : row + 1], found.clean[row : row + 1]
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


def _broken_in_eight_bit(found: _Found, judge: Judge, threat: ThreatModel) -> list[int]:
    """Return the data-set indices of the samples that witnesses of 8 bits still break."""
    broken = eight_bit_successes(
        found.images, found.clean, found.labels, judge.classes, threat.norm, threat.eps
    )
    indices: list[int] = found.records.index[broken.numpy()].tolist()
    return indices


def _digests(digests: dict[str, str]) -> str:
    return ", ".join(f"{name} {digest[:16]}..." for name, digest in digests.items()) or "(none)"
