"""The fast engine: the attacks of `bench.attacks` on full batches, confirmed in float32.

A sample's result depends on the candidate, the sample, the protocol and the seed; on nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bench.attacks import AttackPlan
from bench.engines.acceleration import PRECISIONS
from bench.engines.attack_works import (
    CLEAN,
    Clean,
    KnownImages,
    OneAttack,
    Preparation,
    has_gradient,
    images_to_fill,
    preparation,
    unit_seconds,
)
from bench.engines.batch_size import filling_size
from bench.engines.compilation import earlier_record
from bench.engines.convergence import (
    MOST_DOUBLINGS,
    SETTLED_SHARE,
    expected_share,
    harder_plans,
)
from bench.engines.engine import AttackTask, plan, survivor_cost, survivor_costs, without_samples
from bench.engines.prediction import MOST_CONFIRMATION_DRAWS
from bench.engines.smallest import find_smallest
from bench.engines.trials import NAME as KNOWN_IMAGES
from bench.engines.trials import WITNESSES
from bench.errors import InputError
from bench.executors.in_process import InProcess
from bench.executors.progress import Progress, counting_others
from bench.executors.stage import Executor, Stage, blocks_of, standing
from bench.store.records import AttackBlock


@dataclass
class Course:
    """An attacking run under way: what all of its stages share.

    Attributes:
        task: all samples.
        finished: blocks of an earlier, interrupted run by key.
        report: told how far the work is.
        executor: does the work.
        rows: (n,) places of the samples that stand.
        images_to_fill: that keep a worker's device busy; 0: not asked yet.
    """

    task: AttackTask
    finished: Mapping[str, AttackBlock]
    report: Callable[[Progress], None]
    executor: Executor
    rows: Tensor
    images_to_fill: int = 0

    def through(
        self,
        chain: Sequence[Stage],
        rows: Tensor | None = None,
        expected_seconds: float | None = None,
    ) -> Generator[AttackBlock, None, list[AttackBlock]]:
        """Take samples through a chain; yield new blocks, return all, and keep what stands.

        Args:
            chain: the stages.
            rows: (n,) samples; None: all that stand.
            expected_seconds: see `Executor.do`.
        """
        rows = self.rows if rows is None else rows
        # Keys say which stage a block is of; a block's own key may have a round before it.
        done = {stage.prefix: blocks_of(self.finished, stage.prefix) for stage in chain}
        report = counting_others(self.report, len(self.rows) - len(rows))
        work = self.executor.do(self.task, chain, rows, self.finished, report, expected_seconds)
        for block in work:
            yield block
            done[block.key.rpartition("-")[0]].append(block)
        for stage in chain:
            self.rows = standing(self.task, self.rows, stage, done[stage.prefix])
        return [block for blocks in done.values() for block in blocks]


class FastEngine:
    """Our own attacks on a full batch, confirmed in float32."""

    name = "fast"

    def __init__(self, precision: str = "float32") -> None:
        if precision not in PRECISIONS:
            raise InputError(f"expected a precision of {', '.join(PRECISIONS)}; got {precision!r}")
        self.precision = precision

    def default_batch_size(self, module: nn.Module, images: Tensor) -> int:
        """Return a size that keeps the device busy and fits into a processor's cache."""
        return filling_size(module, images)

    def settings(self, task: AttackTask) -> dict[str, Any]:
        """Return nothing, since batches change no result; those of a randomized candidate do."""
        if not task.randomized:
            return {}
        return {"batch_size": task.batch_size, "confirmation_draws": MOST_CONFIRMATION_DRAWS}

    def run(
        self,
        task: AttackTask,
        finished: Mapping[str, AttackBlock],
        report: Callable[[Progress], None],
        executor: Executor | None = None,
    ) -> Iterator[AttackBlock]:
        """Do the attacks; then, if asked for, look for each sample's smallest perturbation.

        Raises:
            InputError: an attack of the protocol is unknown or its parameters are wrong.
        """
        executor = executor or InProcess()
        blocks = list(finished.values()) if task.eps_curve else []
        for block in self.attacked(task, finished, report, executor):
            yield block
            if task.eps_curve:
                blocks.append(block)
        if task.eps_curve:
            yield from find_smallest(task, self.precision, blocks, finished, report, executor)

    def attacked(
        self,
        task: AttackTask,
        finished: Mapping[str, AttackBlock],
        report: Callable[[Progress], None],
        executor: Executor,
    ) -> Iterator[AttackBlock]:
        """Predict the clean images, then attack by attack what still stands; see `run`."""
        plans = [plan(task, attack) for attack in task.attacks]
        course, setup = yield from self.begun(task, plans, finished, report, executor)
        if setup is None:
            return
        expected = self.expected_seconds(course, setup)
        yield from course.through(self.chain(course, setup, plans, 0, expected), None, expected)
        if not task.until_converged or not self.has_gradient(course, setup):
            return
        shares: list[float] = []
        number = len(plans)
        for doubling in range(1, MOST_DOUBLINGS + 1):
            before = len(course.rows)
            if before == 0 or (shares and expected_share(shares) < SETTLED_SHARE):
                return
            harder = harder_plans(task, doubling)
            yield from course.through(self.chain(course, setup, harder, number, None))
            number += len(harder)
            shares.append(1 - len(course.rows) / before)

    def has_gradient(self, course: Course, setup: Preparation) -> bool:
        """Return whether the candidate has a gradient."""
        return bool(course.executor.ask(without_samples(course.task), setup, has_gradient))

    def expected_seconds(self, course: Course, setup: Preparation) -> float:
        """Return the seconds of a run's attacks in one process, as if all samples stood."""
        unit = float(course.executor.ask(without_samples(course.task), setup, unit_seconds))
        return len(course.rows) * sum(survivor_costs(course.task)) * unit

    def begun(
        self,
        task: AttackTask,
        plans: Sequence[AttackPlan],
        finished: Mapping[str, AttackBlock],
        report: Callable[[Progress], None],
        executor: Executor,
    ) -> Generator[AttackBlock, None, tuple[Course, Preparation | None]]:
        """Predict the clean images, and try known ones.

        Returns:
            the run, and what prepares its attacks; None if nothing stands.
        """
        everything = torch.arange(len(task.labels))
        course = Course(task, finished, report, executor, everything)
        together = 0 if task.randomized else None
        clean = Clean(task.batch_size)
        yield from course.through(
            [Stage("clean", CLEAN, clean, 1.0, exactly=together, counts_up=True)]
        )
        if task.trials is not None:
            tries = KnownImages(task.trials)
            yield from course.through(
                [Stage(WITNESSES, KNOWN_IMAGES, tries, 1.0, exactly=together)]
            )
        if not len(course.rows):
            return course, None
        needs_gradient = any(each.needs_gradient for each in plans)
        return course, preparation(task, course.rows, self.precision, needs_gradient=needs_gradient)

    def chain(
        self,
        course: Course,
        setup: Preparation,
        plans: Sequence[AttackPlan],
        number: int,
        expected_seconds: float | None,
        *,
        nearest_first: bool = False,
    ) -> list[Stage]:
        """Return the stages of attacks, each on what the one before left.

        Args:
            course: the run.
            setup: of the candidate.
            plans: the attacks.
            number: the first one's place in the run's sequence.
            expected_seconds, nearest_first: see `OneAttack`.
        """
        compiled = earlier_record(course.finished)
        works = [
            OneAttack(setup, each, number + place, expected_seconds, compiled, nearest_first)
            for place, each in enumerate(plans)
        ]
        if course.executor.workers > 1 and not course.images_to_fill:
            samples = without_samples(course.task)
            course.images_to_fill = int(course.executor.ask(samples, setup, images_to_fill))
        # A random candidate's draws belong to its batch.
        together = 0 if course.task.randomized else None
        return [
            Stage(
                work.plan.name,
                work.key,
                work,
                survivor_cost(work.plan),
                setup,
                together,
                -(-course.images_to_fill // work.plan.items),
            )
            for work in works
        ]
