"""The works of attacks: clean predictions, images to try, one attack; each on any samples."""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from bench.attacks import AttackPlan, Model
from bench.attacks.image_gradient import GradientError
from bench.engines.acceleration import TRIED_IMAGES, Accelerated, accelerate
from bench.engines.batch_size import busy_size, filling_size, fitting_size, share_of_batch
from bench.engines.compilation import compile_if_worth, pass_seconds
from bench.engines.differentiability import is_differentiable
from bench.engines.engine import (
    GRADIENT_COST,
    AttackTask,
    Task,
    Trials,
    batches,
    failure_record,
)
from bench.engines.prediction import clean_results
from bench.engines.search import Rank, Search
from bench.engines.target_order import TargetOrder
from bench.engines.trials import try_images
from bench.executors.stage import Doing, Report, Setup, Work, Worker
from bench.store.records import AttackBlock, Attempts, CleanResults, IntArray
from bench.store.tables import concatenate

CLEAN = "00-clean"
CLEAN_ATTEMPT = "clean"
"""The attack's name in attempts of samples that failed before any attack."""
LEAST_IN_A_CLEAN_BLOCK = 1000


class AttackWork(Work):
    """Work whose blocks are attempts on samples."""

    def settled(self, block: AttackBlock) -> IntArray:
        """Return the samples that were attempted."""
        assert block.attempts is not None
        return block.attempts.index

    def lost(self, block: AttackBlock) -> IntArray:
        """Return the samples that broke, and those on which the candidate failed."""
        attempts = block.attempts
        assert attempts is not None
        return _index(attempts, ("broken", "failed"))


@dataclass(frozen=True)
class Clean(Work):
    """Predictions without attack.

    Attributes:
        batch_size: samples in one pass.
    """

    batch_size: int

    def blocks(self, worker: Worker, task: Task, report: Report) -> Iterator[AttackBlock]:
        """Predict, a block for every thousand samples."""
        at_once = worker.images_at_once("clean", self.batch_size)
        done = wrong = 0
        rows = torch.arange(len(task.labels))
        for part in batches(rows, max(at_once.size, LEAST_IN_A_CLEAN_BLOCK)):
            start = time.perf_counter()
            clean = concatenate(at_once.in_parts(part, lambda some: clean_results(task, some)))
            yield AttackBlock(key=CLEAN, seconds=time.perf_counter() - start, clean=clean)
            done += len(part)
            wrong += int((clean.prediction != clean.label).sum())
            report(Doing(done, wrong, done))

    def settled(self, block: AttackBlock) -> IntArray:
        """Return the predicted samples."""
        assert block.clean is not None
        return block.clean.index

    def lost(self, block: AttackBlock) -> IntArray:
        """Return the samples that are wrong without attack."""
        assert block.clean is not None
        wrong: IntArray = block.clean.index[block.clean.prediction != block.clean.label]
        return wrong

    def failed(self, task: Task, problem: str) -> AttackBlock:
        """Return the record of a sample without a prediction, which counts as wrong."""
        index = task.indices.numpy()
        clean = CleanResults(index=index, label=task.labels.numpy(), prediction=np.array([-1]))
        return AttackBlock(
            key=CLEAN,
            seconds=0.0,
            clean=clean,
            attempts=_attempts(index, CLEAN_ATTEMPT, "failed"),
            record=failure_record(index, problem),
        )


@dataclass(frozen=True)
class KnownImages(AttackWork):
    """Images that are tried before any attack."""

    trials: Trials

    def blocks(self, worker: Worker, task: AttackTask, report: Report) -> Iterator[AttackBlock]:
        """Try all images of the samples."""
        yield try_images(task, self.trials, worker.images_at_once("trials", task.batch_size))

    def of(self, indices: IntArray) -> KnownImages:
        """Return the images of these samples."""
        chosen = torch.from_numpy(np.isin(self.trials.index.numpy(), indices))
        trials = Trials(
            self.trials.index[chosen], self.trials.images[chosen], self.trials.passes[chosen]
        )
        return KnownImages(trials)


@dataclass
class Prepared:
    """What attacks begin from.

    Attributes:
        fast: the candidate as the search calls it.
        differentiable: whether it has a gradient.
        sizes: samples in one pass that fit into memory, by attack; "" for attacks not named.
        samples: some, for measurements.
        settled_compilation: whether it is decided if passes are compiled.
    """

    fast: Accelerated
    differentiable: bool
    sizes: dict[str, int]
    samples: AttackTask
    settled_compilation: bool = False

    def size_for(self, attack: str) -> int:
        """Return how many samples fit into a pass of an attack."""
        return self.sizes.get(attack, self.sizes[""])


@dataclass(frozen=True, eq=False)
class Preparation(Setup):
    """Makes a candidate's passes faster, and finds out what they need.

    Every worker does it on the same samples, so that all call the candidate in the same way.

    Attributes:
        samples: a task of some samples that stand, with an empty module.
        precision: of the search.
        needs_gradient: whether an attack needs one.
        batch_size: that is asked for.
    """

    samples: AttackTask
    precision: str
    needs_gradient: bool
    batch_size: int

    @property
    def key(self) -> Hashable:
        """The samples on which it is done, and how."""
        return "attacks", self.precision, self.batch_size, tuple(self.samples.indices.tolist())

    def make(self, worker: Worker) -> Prepared:
        """Prepare the worker's candidate."""
        asked = batch_size_on(worker, self.samples, self.batch_size)
        task: AttackTask = replace(
            worker.task,
            images=self.samples.images,
            labels=self.samples.labels,
            indices=self.samples.indices,
            batch_size=asked,
        )
        tried = min(TRIED_IMAGES, asked, len(task.images))
        fast = accelerate(task.module, task.images[:tried].to(task.device), self.precision)
        differentiable = self._has_gradient(fast.model, task)
        size = fitting_size(fast.model, task, asked, differentiable)
        if size < asked:
            fast.record["batch size"] = f"{size} for {asked}, which memory cannot hold"
        return Prepared(fast, differentiable, {"": size}, replace(task, batch_size=size))

    def _has_gradient(self, model: Model, task: AttackTask) -> bool:
        """Return whether attacks can have a gradient; an error counts only if one needs it."""
        try:
            return is_differentiable(model, task)
        except GradientError:
            if self.needs_gradient:
                raise
            return False


def preparation(
    task: AttackTask, rows: Tensor, precision: str, *, needs_gradient: bool
) -> Preparation:
    """Return the preparation for a task on the first of its samples in `rows` (n,)."""
    samples = task.part(rows[:TRIED_IMAGES])
    samples = replace(samples, module=torch.nn.Identity(), surrogate=None, trials=None)
    return Preparation(samples, precision, needs_gradient, task.batch_size)


def batch_size_on(worker: Worker, samples: Task, asked: int) -> int:
    """Return a batch size, or what suits a worker whose device is of another kind.

    Args:
        worker: who uses it.
        samples: a few, on the driver's device.
        asked: the size that suits the driver's device.
    """
    device: torch.device = worker.task.device
    if device.type == samples.device.type or worker.task.randomized:
        return asked
    return filling_size(worker.task.module, samples.images[:4].to(device))


def has_gradient(prepared: Prepared) -> bool:
    """Return whether a candidate has a gradient, for an engine that asks."""
    return prepared.differentiable


def images_to_fill(prepared: Prepared) -> int:
    """Return how many images keep the device busy, for an engine that asks."""
    task = prepared.samples
    return busy_size(task.module, task.images[:1].to(task.device))


def unit_seconds(prepared: Prepared) -> float:
    """Return the seconds of a unit of cost, an image's forward pass, for an engine that asks."""
    task, differentiable = prepared.samples, prepared.differentiable
    # A GPU takes as long for a few images as for hundreds, so a full batch is timed there.
    few = task.batch_size if task.device.type != "cpu" else min(task.batch_size, TRIED_IMAGES)
    images, labels = _repeated(task, few)
    seconds = pass_seconds(prepared.fast.model, images, labels if differentiable else None)
    return seconds / (few * (1 + GRADIENT_COST if differentiable else 1))


@dataclass(frozen=True)
class OneAttack(AttackWork):
    """One attack of a sequence.

    Attributes:
        setup: of the candidate.
        plan: the attack.
        number: its place in the sequence, from 0.
        expected_seconds: of the whole run in one process; decides whether passes are compiled.
            None: that is left to later attacks.
        compiled: what the record of an interrupted run says of that; None: nothing.
        nearest_first: whether targets are ranked by the distance of their boundaries, instead of by
            their logits.
    """

    setup: Preparation
    plan: AttackPlan
    number: int
    expected_seconds: float | None = None
    compiled: str | None = None
    nearest_first: bool = False

    @property
    def key(self) -> str:
        """The name of its blocks."""
        return f"{self.number + 1:02d}-{self.plan.name}"

    def blocks(self, worker: Worker, task: AttackTask, report: Report) -> Iterator[AttackBlock]:
        """Attack, or record that there is no gradient to follow."""
        prepared: Prepared = worker.prepared(self.setup)
        # A stand-in has a gradient even where the candidate itself has none at all.
        has_gradient = prepared.differentiable or self.plan.view == "straight-through"
        if self.plan.needs_gradient and not has_gradient:
            index = task.indices.numpy()
            attempts = _attempts(index, self.plan.name, "skipped")
            yield AttackBlock(key=self.key, seconds=0.0, attempts=attempts)
            return
        self._settle_compilation(worker, prepared, task)
        size = prepared.size_for(self.plan.name)
        if worker.share > 1:
            size = share_of_batch(size, worker.share, images_to_fill(prepared))
        search = Search(
            replace(task, batch_size=size),
            self.plan,
            prepared.fast,
            size,
            self.number,
            self.setup.precision,
            self._rank(worker, prepared, task),
        )
        yield from search.run(report)
        if search.places.size < size:
            prepared.sizes[self.plan.name] = search.places.size

    def failed(self, task: AttackTask, problem: str) -> AttackBlock:
        """Return the record of a sample on which the attack could not be finished."""
        index = task.indices.numpy()
        return AttackBlock(
            key=self.key,
            seconds=0.0,
            attempts=_attempts(index, self.plan.name, "failed"),
            record=failure_record(index, problem),
        )

    def _settle_compilation(self, worker: Worker, prepared: Prepared, task: AttackTask) -> None:
        expected = self.expected_seconds
        if expected is None or prepared.settled_compilation:
            return
        if not (prepared.differentiable and worker.may_compile):
            return
        prepared.settled_compilation = True
        images, labels = _repeated(task, prepared.sizes[""])
        prepared.fast = compile_if_worth(prepared.fast, images, labels, expected, self.compiled)

    def _rank(self, worker: Worker, prepared: Prepared, task: AttackTask) -> Rank | None:
        if not self.nearest_first:
            return None
        known: dict[int, Tensor] = worker.memory.setdefault("nearest classes", {})
        return TargetOrder(task, prepared.fast, known)


def _repeated(task: AttackTask, count: int) -> tuple[Tensor, Tensor]:
    """Return so many images and labels on the device, samples again and again."""
    rows = torch.arange(count) % len(task.images)
    return task.images[rows].to(task.device), task.labels[rows].to(task.device)


def _index(attempts: Attempts, outcomes: tuple[str, ...]) -> IntArray:
    chosen: IntArray = attempts.index[np.isin(attempts.outcome, outcomes)]
    return chosen


def _attempts(index: IntArray, attack: str, outcome: str) -> Attempts:
    """Return attempts that took no step."""
    n, nothing = len(index), np.zeros(len(index))
    return Attempts(
        index=index,
        attack=np.full(n, attack),
        outcome=np.full(n, outcome),
        iteration=np.full(n, -1),
        forward_passes=nothing,
        backward_passes=nothing,
        seconds=nothing,
    )
