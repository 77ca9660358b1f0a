"""The certification engine: votes under noise instead of attacks."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.candidates.mix import Mix
from bench.certification.batched import Certificate, certify_many
from bench.certification.mix import MixedVote
from bench.certification.noise import Noise, Piece
from bench.certification.procedure import FixedProcedure, Procedure
from bench.certification.sequential import QUESTIONS, SequentialProcedure
from bench.certification.smoothing import Smoothing
from bench.decision import NO_CLASS, classes_of
from bench.engines.acceleration import (
    PRECISIONS,
    TRIED_IMAGES,
    Accelerated,
    accelerate,
)
from bench.engines.answering import answered_rows
from bench.engines.attack_works import batch_size_on
from bench.engines.batch_size import busy_size, filling_size, share_of_batch
from bench.engines.compilation import compile_if_worth, earlier_record, pass_seconds
from bench.engines.engine import CertificationTask, failure_record, without_samples
from bench.errors import InputError
from bench.executors.in_process import InProcess
from bench.executors.progress import Progress
from bench.executors.stage import (
    Doing,
    Executor,
    Report,
    Setup,
    Stage,
    Work,
    Worker,
    unsettled,
)
from bench.memory.out_of_memory import ImagesAtOnce, with_as_many_as_fit
from bench.precision import tensor_cores
from bench.store.records import (
    ABSTAINED,
    DRAWS_WITHOUT_CLASS,
    Certificates,
    CertificationBlock,
    IntArray,
)

PROCEDURES = ("fixed", "sequential")

ACCURATE_BATCH = 128
"""Images in one pass through a mix's accurate base, which sees each image once, without noise."""
TIMED_PASSES = 50
"""A run of fewer passes is too short to time some of them first."""
SECONDS_A_BLOCK = 20.0
SECONDS_BETWEEN_REPORTS = 0.5
STAGE = "certify"
_PREFIX = f"01-{STAGE}"


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
            **self._procedure(task).settings,
            "noise": Noise.name,
            **({} if task.mix is None else {"mixed_vote": {"alpha": task.mix.alpha}}),
        }

    def run(
        self,
        task: CertificationTask,
        finished: Mapping[str, CertificationBlock],
        report: Callable[[Progress], None],
        executor: Executor | None = None,
    ) -> Iterator[CertificationBlock]:
        """Certify the samples that no finished block has, a block about every 20 seconds."""
        procedure = self._procedure(task)
        draws = _most_draws(procedure.smoothing)
        rows = torch.arange(len(task.labels))
        setup = Voters(
            replace(task.part(rows[:TRIED_IMAGES]), module=nn.Identity(), mix=None), self.precision
        )
        work = Certifying(setup, procedure, draws * len(rows), earlier_record(finished))
        stage = Stage(STAGE, _PREFIX, work, draws, setup, counts_up=True)
        executor = executor or InProcess()
        if not len(unsettled(task, rows, stage, list(finished.values()))):
            return
        seconds = executor.ask(without_samples(task), setup, draw_seconds)
        yield from executor.do(task, [stage], rows, finished, report, draws * len(rows) * seconds)

    def _procedure(self, task: CertificationTask) -> Procedure:
        if self.procedure == "fixed":
            return FixedProcedure(task.smoothing)
        # The certified accuracy is about the threat model's radius, so that it has to be settled.
        questions = sorted({*QUESTIONS, task.threat_model.eps})
        return SequentialProcedure(task.smoothing, tuple(questions))


@dataclass
class Prepared:
    """What votes are taken with.

    Attributes:
        fast: the candidate as it is called.
        size: noisy images in one pass.
        draw_seconds: of one draw.
        settled_compilation: whether it is decided if passes are compiled.
    """

    fast: Accelerated
    size: int
    draw_seconds: float
    settled_compilation: bool = False


@dataclass(frozen=True, eq=False)
class Voters(Setup):
    """Makes a candidate's passes faster, and finds out how many images fit into one.

    Attributes:
        samples: a task of some samples, with an empty module.
        precision: of the passes.
    """

    samples: CertificationTask
    precision: str

    @property
    def key(self) -> Hashable:
        """The samples on which it is done, and how."""
        indices = tuple(self.samples.indices.tolist())
        return "votes", self.precision, self.samples.batch_size, indices

    def make(self, worker: Worker) -> Prepared:
        """Prepare the worker's candidate."""
        device, images = worker.task.device, self.samples.images
        images = images[answered_rows(worker.task.module, images.to(device))]
        fast = accelerate(worker.task.module, images.to(device), self.precision)
        asked = batch_size_on(worker, self.samples, self.samples.batch_size)
        with tensor_cores(self.precision == "tf32"):
            noise = Noise(self.samples.seed, device)
            size = _fitting_size(fast.model, noise, images, asked)
            # A GPU takes as long for a few images as for hundreds, so a full batch is timed there.
            few = size if device.type != "cpu" else min(size, TRIED_IMAGES)
            batch = images[torch.arange(few) % len(images)].to(device)
            seconds = pass_seconds(fast.model, batch, None) / few
        return Prepared(fast, size, seconds)


def draw_seconds(prepared: Prepared) -> float:
    """Return the seconds of a draw, for expectations."""
    return prepared.draw_seconds


@dataclass(frozen=True)
class Certifying(Work):
    """The votes on samples.

    Attributes:
        setup: of the candidate.
        procedure: how draws are made and counted.
        most_draws: of all samples of the run; decides whether passes are compiled.
        compiled: what the record of an interrupted run says of that; None: nothing.
    """

    setup: Voters
    procedure: Procedure
    most_draws: int
    compiled: str | None

    def blocks(
        self, worker: Worker, task: CertificationTask, report: Report
    ) -> Iterator[CertificationBlock]:
        """Certify, a block about every 20 seconds."""
        prepared: Prepared = worker.prepared(self.setup)
        selection = self.procedure.smoothing.selection_samples
        most_draws = _most_draws(self.procedure.smoothing)
        self._settle_compilation(worker, prepared, task)
        precision = self.setup.precision
        voting = _Voting(prepared.fast, precision)
        mixed = None if task.mix is None else mixed_vote(task, task.mix, self.procedure)
        batches = certify_many(
            voting,
            task.images,
            task.indices,
            task.classes,
            self.procedure,
            Noise(task.seed, task.device),
            prepared.size,
            mixed,
            worker.images_at_once("votes", worker.share * self._size(worker, prepared, task)),
        )
        labels = task.labels.tolist()
        certificates: list[Certificate] = []
        done = wrong = drawn = in_block = of_done = 0
        block_start = reported = time.perf_counter()
        for settled, draws in batches:
            now = time.perf_counter()
            certificates += settled
            drawn, in_block = drawn + draws, in_block + draws
            done += len(settled)
            wrong += sum(each.prediction != labels[each.row] for each in settled)
            of_done += sum(each.noise_samples + selection for each in settled)
            if now - reported >= SECONDS_BETWEEN_REPORTS:
                reported = now
                report(Doing(done, wrong, drawn, max(0, drawn - of_done) / most_draws))
            if certificates and now - block_start >= SECONDS_A_BLOCK:
                seconds, block_start = now - block_start, now
                yield _block(task, certificates, in_block, seconds, voting.record())
                certificates, in_block = [], 0
        if certificates:
            seconds = time.perf_counter() - block_start
            yield _block(task, certificates, in_block, seconds, voting.record())
        report(Doing(done, wrong, drawn))

    def settled(self, block: CertificationBlock) -> IntArray:
        """Return the certified samples."""
        return block.certificates.index

    def lost(self, block: CertificationBlock) -> IntArray:
        """Return the samples with a wrong vote, or none."""
        certificates = block.certificates
        wrong: IntArray = certificates.index[certificates.prediction != certificates.label]
        return wrong

    def failed(self, task: CertificationTask, problem: str) -> CertificationBlock:
        """Return the record of a sample without a vote: it abstains, and nothing is proved."""
        index, none = task.indices.numpy(), np.zeros(1, dtype=np.int64)
        return CertificationBlock(
            key=_PREFIX,
            seconds=0.0,
            certificates=Certificates(
                index=index,
                label=task.labels.numpy(),
                prediction=np.array([ABSTAINED]),
                radius=np.zeros(1),
                certified_count=none,
                noise_samples=none,
            ),
            record=failure_record(index, problem),
        )

    def _size(self, worker: Worker, prepared: Prepared, task: CertificationTask) -> int:
        """Return the images in a pass: workers of a machine share its memory."""
        if worker.share == 1:
            return prepared.size
        fills = busy_size(task.module, task.images[:1].to(task.device))
        return share_of_batch(prepared.size, worker.share, fills)

    def _settle_compilation(
        self, worker: Worker, prepared: Prepared, task: CertificationTask
    ) -> None:
        if prepared.settled_compilation or not worker.may_compile:
            return
        prepared.settled_compilation = True
        size = prepared.size
        batch = task.images[torch.arange(size) % len(task.images)].to(task.device)
        expected = 0.0
        if self.most_draws >= TIMED_PASSES * size:
            expected = prepared.draw_seconds * self.most_draws
        prepared.fast = compile_if_worth(prepared.fast, batch, None, expected, self.compiled)


def mixed_vote(task: CertificationTask, mix: Mix, procedure: Procedure) -> MixedVote:
    """Return how votes for a mix's robust base become a certificate of the mix.

    Raises:
        InputError: the procedure does not take the votes of all classes.
    """
    if not isinstance(procedure, FixedProcedure):
        raise InputError(
            f"--procedure: expected fixed for a mix, which needs the votes of all classes; got "
            f"{procedure.name}"
        )

    def accurate_probabilities(part: Tensor) -> Tensor:
        return mix.accurate_probabilities(task.images[part].to(task.device)).cpu()

    with torch.no_grad(), tensor_cores(False):
        at_once = ImagesAtOnce(ACCURATE_BATCH)
        parts = at_once.in_parts(torch.arange(len(task.images)), accurate_probabilities)
    accurate = torch.cat(parts).double().numpy()
    return MixedVote(accurate, mix.alpha, procedure.smoothing)


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


def _fitting_size(
    model: Callable[[Tensor], Tensor], noise: Noise, images: Tensor, size: int
) -> int:
    """Return the batch size, halved until a batch of noise and its passes fit into memory."""

    def passed(count: int) -> int:
        drawn = noise.normal([Piece(0, 0, 0, count)], images.shape[1:])
        # Images, and not bare noise, on which a candidate might raise an error of its own.
        batch = images[torch.arange(count) % len(images)].to(drawn.device)
        with torch.no_grad():
            model(batch + 0 * drawn)
        return count

    return with_as_many_as_fit(size, passed)


def _most_draws(smoothing: Smoothing) -> int:
    return smoothing.selection_samples + smoothing.noise_samples


def _block(
    task: CertificationTask,
    certificates: list[Certificate],
    draws: int,
    seconds: float,
    record: Mapping[str, float | str],
) -> CertificationBlock:
    place = [each.row for each in certificates]
    return CertificationBlock(
        key=_PREFIX,
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
