"""The certification engine: votes under noise instead of attacks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.candidates.mix import Mix, logits_of
from bench.certification.batched import Certificate, certify_many
from bench.certification.mix import MixedVote
from bench.certification.noise import Noise, Piece
from bench.certification.procedure import FixedProcedure, Procedure
from bench.certification.sequential import SequentialProcedure
from bench.certification.smoothing import Smoothing
from bench.decision import NO_CLASS, classes_of
from bench.engines.acceleration import (
    PRECISIONS,
    TRIED_IMAGES,
    Accelerated,
    accelerate,
)
from bench.engines.batch_size import filling_size
from bench.engines.compilation import compile_if_worth, pass_seconds
from bench.engines.engine import CertificationTask
from bench.engines.progress import Progress
from bench.errors import InputError
from bench.memory.out_of_memory import ImagesAtOnce, with_as_many_as_fit
from bench.precision import tensor_cores
from bench.store.records import DRAWS_WITHOUT_CLASS, Certificates, CertificationBlock

PROCEDURES = ("fixed", "sequential")

ACCURATE_BATCH = 128
"""Images in one pass through a mix's accurate base, which sees each image once, without noise."""
TIMED_PASSES = 50
"""A run of fewer passes is too short to time some of them first."""
SECONDS_A_BLOCK = 20.0
SECONDS_BETWEEN_REPORTS = 0.5
STAGE = "certify"


class CertificationEngine:
    """Certifies a smoothed classifier, or a mix whose robust base is one.

    Args:
        procedure: fixed (Cohen et al.'s CERTIFY) or sequential.
        precision: precision of the passes; the certificate is about the classifier in that
            precision.

    Raises:
        InputError: there is no such procedure or precision.
    """

    name = "certification"

    def __init__(self, procedure: str = "fixed", precision: str = "float32") -> None:
        if procedure not in PROCEDURES:
            raise InputError(f"expected a procedure of {', '.join(PROCEDURES)}; got {procedure!r}")
        if precision not in PRECISIONS:
            raise InputError(f"expected a precision of {', '.join(PRECISIONS)}; got {precision!r}")
        self.procedure = procedure
        self.precision = precision

    def default_batch_size(self, module: nn.Module, images: Tensor) -> int:
        """Return the fast engine's batch size, larger for tiny networks."""
        return filling_size(module, images, gradients=False)

    def settings(self, task: CertificationTask) -> dict[str, Any]:
        """Return noise, numbers of draws and procedure; the batch size changes no result."""
        smoothing = task.smoothing
        return {
            "procedure": self.procedure,
            **vars(smoothing),
            **self._procedure(smoothing).settings,
            "noise": Noise.name,
            **({} if task.mix is None else {"mixed_vote": {"alpha": task.mix.alpha}}),
        }

    def run(
        self,
        task: CertificationTask,
        finished: Mapping[str, CertificationBlock],
        report: Callable[[Progress], None],
    ) -> Iterator[CertificationBlock]:
        """Certify the samples that no finished block has, a block about every 20 seconds."""
        procedure = self._procedure(task.smoothing)
        done = [block.certificates for block in finished.values()]
        known = np.concatenate([part.index for part in done]) if done else np.array([], np.int64)
        rows = torch.from_numpy(np.flatnonzero(~np.isin(task.indices.numpy(), known)))
        number = 1 + max((int(key.rpartition("-")[2]) for key in finished), default=-1)
        if not len(rows):
            return
        images = task.images[rows]  # too many for a GPU: each batch brings its own
        noise = Noise(task.seed, task.device)
        fast = accelerate(task.module, images[:TRIED_IMAGES].to(task.device), self.precision)
        most_draws = _most_draws(procedure.smoothing)
        with tensor_cores(self.precision == "tf32"):
            size = min(task.batch_size, len(rows) * most_draws)
            size = _fitting_size(fast.model, noise, images, size)
            fast = _compiled_if_worth(
                fast, images, noise.device, size, len(rows) * most_draws, finished
            )
        voting = _Voting(fast, self.precision)
        progress = _Tally(
            examples=len(task.labels),
            done=len(known),
            right=sum(int((part.prediction == part.label).sum()) for part in done),
            most_draws=most_draws,
        )
        certificates: list[Certificate] = []
        draws = 0
        block_start = reported = time.perf_counter()
        batches = certify_many(
            voting,
            images,
            task.indices[rows],
            task.classes,
            procedure,
            noise,
            size,
            None if task.mix is None else self._mixed_vote(task, task.mix, images, procedure),
        )
        for settled, drawn in batches:
            now = time.perf_counter()
            certificates += settled
            draws += drawn
            labels = task.labels[rows[[each.row for each in settled]]].tolist()
            progress.add(settled, labels, drawn)
            if now - reported >= SECONDS_BETWEEN_REPORTS:
                reported = now
                report(progress.at(now))
            if certificates and now - block_start >= SECONDS_A_BLOCK:
                seconds, block_start = now - block_start, now
                yield _block(task, rows, number, certificates, draws, seconds, voting.record())
                number, certificates, draws = number + 1, [], 0
        if certificates:
            seconds = time.perf_counter() - block_start
            yield _block(task, rows, number, certificates, draws, seconds, voting.record())
        report(progress.at(time.perf_counter()))

    def _mixed_vote(
        self, task: CertificationTask, mix: Mix, images: Tensor, procedure: Procedure
    ) -> MixedVote:
        if not isinstance(procedure, FixedProcedure):
            raise InputError(
                f"--procedure: expected fixed for a mix, which needs the votes of all classes; got "
                f"{procedure.name}"
            )

        def accurate_probabilities(part: Tensor) -> Tensor:
            logits = logits_of(mix.accurate(images[part].to(task.device)))
            return mix.accurate_log_probabilities(logits).exp().cpu()

        with torch.no_grad(), tensor_cores(False):
            at_once = ImagesAtOnce(ACCURATE_BATCH)
            parts = at_once.in_parts(torch.arange(len(images)), accurate_probabilities)
        accurate = torch.cat(parts).double().numpy()
        return MixedVote(accurate, mix.alpha, procedure.smoothing)

    def _procedure(self, smoothing: Smoothing) -> Procedure:
        return (
            FixedProcedure(smoothing)
            if self.procedure == "fixed"
            else SequentialProcedure(smoothing)
        )


class _Voting:
    """Takes a candidate's votes, and counts those that are for no class."""

    def __init__(self, fast: Accelerated, precision: str) -> None:
        self.fast = fast
        self.precision = precision
        self._without_class: Tensor | int = 0

    def __call__(self, noisy: Tensor) -> Tensor:
        """Return the classes (n,) of noisy images (n, C, H, W), `NO_CLASS` where there is none."""
        with torch.no_grad(), tensor_cores(self.precision == "tf32"):
            classes = classes_of(self.fast.model(noisy))
        self._without_class = self._without_class + (classes == NO_CLASS).sum()
        return classes

    def record(self) -> dict[str, float | str]:
        """Return the candidate's record, with the number of votes for no class since the last."""
        count, self._without_class = int(self._without_class), 0
        return {**self.fast.record, **({DRAWS_WITHOUT_CLASS: count} if count else {})}


class _Tally:
    """Counts what is done, and estimates the most time that is left."""

    def __init__(self, examples: int, done: int, right: int, most_draws: int) -> None:
        self.examples = examples
        self.done = done
        self.right = right
        self.most_draws = most_draws
        self.draws = 0
        self.draws_of_done = 0
        self.start = time.perf_counter()

    def add(self, settled: list[Certificate], labels: list[int], draws: int) -> None:
        """Count a batch."""
        self.done += len(settled)
        self.right += sum(
            each.prediction == label for each, label in zip(settled, labels, strict=True)
        )
        self.draws += draws
        self.draws_of_done += sum(each.noise_samples for each in settled)

    def at(self, now: float) -> Progress:
        """Return the progress to display; draws of samples under way count as done."""
        under_way = max(0, self.draws - self.draws_of_done)
        left = max(0, (self.examples - self.done) * self.most_draws - under_way)
        seconds = left * (now - self.start) / self.draws if self.draws else None
        return Progress(STAGE, self.done, self.examples, self.right, max(self.done, 1), seconds)


def _fitting_size(
    model: Callable[[Tensor], Tensor], noise: Noise, images: Tensor, size: int
) -> int:
    """Return the batch size, halved until a batch of noise and its passes fit into memory."""

    def passed(count: int) -> int:
        with torch.no_grad():
            model(noise.normal([Piece(0, 0, 0, count)], images.shape[1:]))
        return count

    return with_as_many_as_fit(size, passed)


def _compiled_if_worth(
    fast: Accelerated,
    images: Tensor,
    device: torch.device,
    size: int,
    draws: int,
    finished: Mapping[str, CertificationBlock],
) -> Accelerated:
    """Return the candidate, with compiled passes if the draws take long enough to pay for them."""
    batch = images[torch.arange(size) % len(images)].to(device)
    expected = 0.0
    if draws >= TIMED_PASSES * size:
        expected = pass_seconds(fast.model, batch, None) / size * draws
    return compile_if_worth(fast, batch, None, expected, finished)


def _most_draws(smoothing: Smoothing) -> int:
    return smoothing.selection_samples + smoothing.noise_samples


def _block(
    task: CertificationTask,
    rows: Tensor,
    number: int,
    certificates: list[Certificate],
    draws: int,
    seconds: float,
    record: Mapping[str, float | str],
) -> CertificationBlock:
    place = rows[[each.row for each in certificates]]
    return CertificationBlock(
        key=f"01-{STAGE}-{number:05d}",
        seconds=seconds,
        certificates=Certificates(
            index=task.indices[place].numpy(),
            label=task.labels[place].numpy(),
            prediction=np.array([each.prediction for each in certificates]),
            radius=np.array([each.radius for each in certificates]),
            certified_count=np.array([each.certified_count for each in certificates]),
            noise_samples=np.array([each.noise_samples for each in certificates]),
        ),
        record={**record, "draws": draws, "seconds": seconds},
    )
