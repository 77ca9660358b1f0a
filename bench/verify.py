"""Checks a run's robust accuracy by its witnesses: minutes instead of the days that it took.

A sample counts as not robust if the candidate errs on the clean image, or on a witness that lies in
the eps-ball and in [0, 1]. Both are tried again, once (with a randomized candidate as often as when
it was attacked); no attack is run. What is confirmed is an upper bound: nothing here can show that
a sample *is* robust.
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
from bench.attacks.expectation import expectation
from bench.candidates import Candidate
from bench.data import Dataset
from bench.eight_bit import eight_bit_successes
from bench.engines.acceleration import tensor_cores
from bench.engines.prediction import (
    BEYOND_DOUBT,
    CONFIRMATION_DRAWS,
    keyed_randomness,
    leads,
)
from bench.errors import InputError
from bench.records import Manifest, Witnesses
from bench.store import RunFolder
from bench.suites import ThreatModel


@dataclass(frozen=True)
class Verification:
    """What came of checking a run.

    Attributes:
        n_examples: samples of the run.
        claimed: its robust accuracy.
        confirmed: upper bound of the robust accuracy that the witnesses prove.
        eight_bit: the same with the witnesses on the 8-bit grid.
        witnesses: how many there are.
        witness_bytes: size of their file.
        failures: what did not hold, a line each; empty: the claim is confirmed.
        passes: forward passes that checking took, of one image each, without those for `eight_bit`.
        run_passes: forward passes and gradients that making the run took.
        seconds, run_seconds: the same in time.
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
        """Whether everything held."""
        return not self.failures


def check_candidate(candidate: Candidate, manifest: Manifest) -> None:
    """Make sure that a candidate is the one of a run.

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
    if candidate.definition_sha256 != manifest.definition_sha256:
        raise InputError(
            f"{run}: expected the candidate as it was defined then, digest "
            f"{manifest.definition_sha256[:16]!r}, got {candidate.definition_sha256[:16]!r}; its "
            "code, arguments or package version changed since"
        )


def verify(
    folder: RunFolder,
    candidate: Candidate,
    dataset: Dataset,
    device: torch.device,
    batch_size: int = 250,
) -> Verification:
    """Run a candidate once on each witness of a run; a randomized one as often as it was confirmed.

    Of a randomized one the mean over draws that no attack has seen decides about a witness; a
    sample that is said to be wrong without attack is refuted where the label leads beyond doubt.

    Args:
        folder: of a complete run.
        candidate: as it was when the run was made.
        dataset: the samples of the run.

    Raises:
        InputError: another candidate than the run's, or files that are damaged or of another shape.
    """
    summary = folder.summary()
    check_candidate(candidate, summary.manifest)
    samples = folder.samples()
    witnesses = folder.witnesses(dataset.images.numpy(), dataset.indices.tolist())
    place = {index: row for row, index in enumerate(dataset.indices.tolist())}
    module = candidate.module.to(device)
    draws = CONFIRMATION_DRAWS if candidate.randomized else 1
    model = expectation(module, draws) if candidate.randomized else module

    def in_batches(answer: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        # In float32 on a GPU too, as when it was confirmed.
        with (
            torch.no_grad(),
            tensor_cores(False),
            keyed_randomness(device, summary.manifest.seed, len(inputs[0])),
        ):
            parts = zip(*(torch.split(each, batch_size) for each in inputs), strict=True)
            return torch.cat([answer(*(some.to(device) for some in part)).cpu() for part in parts])

    def logits(images: Tensor) -> Tensor:
        return in_batches(lambda some: model(some).float(), images)

    def surely_right(images: Tensor, labels: Tensor) -> Tensor:
        def of_batch(some: Tensor, theirs: Tensor) -> Tensor:
            if not candidate.randomized:
                right: Tensor = module(some).max(dim=1)[1] == theirs
                return right
            return leads(module, some, theirs, draws)[1] < -BEYOND_DOUBT

        return in_batches(of_batch, images, labels)

    start = time.perf_counter()
    failures = _contradictions(samples, summary.robust_accuracy, witnesses)
    wrong = samples.loc[~samples["clean_correct"], "index"].tolist()
    rows = torch.tensor([place[index] for index in wrong], dtype=torch.int64)
    failed, proofs = _check_clean(dataset, rows, surely_right)
    failures += failed
    proven, eight_bit, passes = len(proofs), len(proofs), len(wrong)
    if witnesses is not None:
        rows = torch.tensor([place[index] for index in witnesses.index.tolist()])
        clean, labels = dataset.images[rows], dataset.labels[rows]
        images = torch.from_numpy(witnesses.images)
        threat = summary.manifest.threat_model
        failed, proofs = _check_images(images, clean, labels, logits(images), witnesses, threat)
        failures += failed
        proven, passes = proven + len(proofs), passes + len(images)
    seconds = time.perf_counter() - start
    if witnesses is not None:
        broken = eight_bit_successes(
            images,
            clean,
            labels,
            lambda tried: logits(tried).max(dim=1)[1],
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
        passes=passes * draws,
        run_passes=sum(done.forward_passes + done.backward_passes for done in summary.attacks) + n,
        seconds=seconds,
        run_seconds=summary.seconds,
    )


def _contradictions(
    samples: pd.DataFrame, claimed: float, witnesses: Witnesses | None
) -> list[str]:
    """Where the run's own tables disagree."""
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


def _check_clean(
    dataset: Dataset, rows: Tensor, surely_right: Callable[[Tensor, Tensor], Tensor]
) -> tuple[list[str], list[int]]:
    """As `_check_images`, for the samples in `rows` that are said to be wrong without attack."""
    if not len(rows):
        return [], []
    right = surely_right(dataset.images[rows], dataset.labels[rows])
    failures, proofs = [], []
    for index, good in zip(dataset.indices[rows].tolist(), right.tolist(), strict=True):
        if good:
            failures.append(f"sample {index}: said to be wrong without attack, is right")
        else:
            proofs.append(index)
    return failures, proofs


def _check_images(
    images: Tensor,
    clean: Tensor,
    labels: Tensor,
    logits: Tensor,
    witnesses: Witnesses,
    threat: ThreatModel,
) -> tuple[list[str], list[int]]:
    """Failures, and the data-set places of the samples that are proven not to be robust."""
    good = inside(images, clean, threat.norm, threat.eps)
    own = logits.gather(1, labels[:, None]).squeeze(1)
    others = logits.scatter(1, labels[:, None], float("-inf")).max(dim=1)[0]
    fooled = logits.max(dim=1)[1] != labels
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
        elif not fooled[row]:
            margin = float(own[row] - others[row])
            failures.append(f"{name}: the candidate is right on it, by a margin of {margin:.3g}")
        else:
            proofs.append(index)
    return failures, proofs


def _digests(digests: dict[str, str]) -> str:
    return ", ".join(f"{name} {digest[:16]}..." for name, digest in digests.items()) or "(none)"
