"""The express engine: short attacks where they break something, until little is left to break.

It pulls the arms of `arms`, as `bench.engines.express_planner` says, on the search of the fast
engine: every success is confirmed in float32 and has its witness. Where gradients mislead, few
steps along them say nothing. So a short random search looks at some samples that stand; if it
breaks what gradients could not, or there is no gradient, or answers are random, the task's own
attacks follow on all that stands.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from bench.attacks import ATTACKS, Attack, AttackPlan
from bench.attacks.auto_pgd import APGD
from bench.attacks.cosine_pgd import CosinePGD
from bench.attacks.losses import LOSSES, loss_for
from bench.attacks.square_by_norm import square_for
from bench.attacks.target_ranking import RANKED_CLASSES
from bench.engines.attack_works import Preparation
from bench.engines.engine import (
    AttackTask,
    broken_rows,
    plan,
    survivor_cost,
    survivor_costs,
)
from bench.engines.express_planner import Arm, Planner, Pull, Remaining
from bench.engines.fast import Course, FastEngine
from bench.executors.progress import Progress
from bench.executors.stage import Executor
from bench.store.records import FAILED, AttackBlock
from bench.suites.suite import AttackChoice

GOAL = 0.0005
"""Share of the samples: with fewer expected to be left, the search ends."""

BUDGET_SHARE = 0.04
"""Share of what the task's own attacks would cost on the samples that stand in the end."""

LEAST_ROWS = 32
ROWS_SHARE = 8
"""One in so many of the standing samples is in a pull, and at least `LEAST_ROWS`."""

LOOKED_AT = 32
QUERIES = 150
MASKED_BREAKS = 2
"""A random search of so many queries on so many samples breaks at most one that gradients left."""

LOOK = "express-look"
LEFT = "express-left"
"""Names of the random search, and of the last block, whose record says what is left."""


def arms(task: AttackTask) -> list[AttackPlan]:
    """Return the arms for a task, the first two for all samples.

    Those that know how a candidate is built are the task's own attacks with fewer steps. The others
    come twice: where few samples are left, new random starts break what other losses do not.
    """
    norm, eps = task.threat_model.norm, task.threat_model.eps
    dlr = loss_for("dlr", task.classes)
    general = [
        _arm("express-margin", CosinePGD(norm, eps, steps=10)),
        *_targeted(task, "express-nearest-target", steps=10, first=0, count=1),
        *_targeted(task, "express-next-targets", steps=10, first=1, count=4),
        *_targeted(task, "express-far-targets", steps=10, first=5, count=4),
        *_targeted(task, "express-long-targets", steps=50, first=0, count=3),
        _arm("express-long-margin", CosinePGD(norm, eps, steps=50)),
        _arm("express-dlr", APGD(norm, eps, LOSSES[dlr], steps=50)),
        _arm("express-ce", APGD(norm, eps, LOSSES["ce"], steps=25)),
    ]
    return [
        *general,
        *(_shortened(task, choice) for choice in task.attacks if ATTACKS[choice.name].need),
        *(replace(each, name=f"{each.name}-again") for each in general),
    ]


def _arm(name: str, attack: Attack[Any], targets: int = 0, first: int = 0) -> AttackPlan:
    parameters = {"steps": attack.steps, "targets": targets, "first_target": first}
    return AttackPlan(name, attack, targets, 1, parameters, "", first_target=first)


def _targeted(
    task: AttackTask, name: str, *, steps: int, first: int, count: int
) -> Iterator[AttackPlan]:
    """Yield the arm that aims for `count` classes, beginning with one; none if there are fewer."""
    targets = min(count, min(task.classes - 1, RANKED_CLASSES) - first)
    if targets > 0:
        norm, eps = task.threat_model.norm, task.threat_model.eps
        yield _arm(name, CosinePGD(norm, eps, targeted=True, steps=steps), targets, first)


def _shortened(task: AttackTask, choice: AttackChoice) -> AttackPlan:
    """Return an attack with few steps, targets and restarts, under a name of its own."""
    most = {"steps": 20, "targets": 2, "restarts": 2}
    defaults = ATTACKS[choice.name].defaults
    fewer = {name: min(value, most.get(name, value)) for name, value in defaults.items()}
    short = plan(task, choice.model_copy(update={"parameters": fewer}))
    return replace(short, name=_short_name(short.name))


def _short_name(attack: str) -> str:
    return f"express-{attack}"


class ExpressEngine(FastEngine):
    """Short attacks where they break something; the task's own ones where gradients mislead."""

    name = "express"

    def __init__(
        self, precision: str = "float32", *, goal: float = GOAL, budget_share: float = BUDGET_SHARE
    ) -> None:
        """Make an engine.

        Args:
            precision: of the search.
            goal: share of the samples; with fewer expected to be left, the search ends.
            budget_share: of what the task's own attacks would cost on the samples that stand.

        Raises:
            InputError: the precision is none of the known ones.
        """
        super().__init__(precision)
        self.goal = goal
        self.budget_share = budget_share

    def settings(self, task: AttackTask) -> dict[str, Any]:
        """Return what decides where passes go, and the attacks that follow an escalation."""
        return {
            **super().settings(task),
            "goal": self.goal,
            "budget_share": self.budget_share,
            "escalation": [attack.model_dump(mode="json") for attack in task.attacks],
        }

    def attacked(
        self,
        task: AttackTask,
        finished: Mapping[str, AttackBlock],
        report: Callable[[Progress], None],
        executor: Executor,
    ) -> Iterator[AttackBlock]:
        """Predict the clean images, pull arms until little is left, and say how much that is."""
        own = [plan(task, attack) for attack in task.attacks]
        course, setup = yield from self.begun(task, own, finished, report, executor)
        if setup is None:
            return
        reason = "answers are random" if task.randomized else ""
        if not self.has_gradient(course, setup):
            reason = "the candidate has no gradient"
        record: dict[str, float | str] = {}
        if not reason:
            planner = yield from self._pull_arms(course, setup)
            reason = yield from self._look(course, setup, planner)
            record = _left(planner.remaining())
        if reason:
            record = {"express_escalated": reason}
            expected = self.expected_seconds(course, setup)
            yield from course.through(self.chain(course, setup, own, 0, expected), None, expected)
        if f"99-{LEFT}-00000" not in finished:
            yield AttackBlock(key=f"99-{LEFT}-00000", seconds=0.0, record=record)

    def _pull_arms(
        self, course: Course, setup: Preparation
    ) -> Generator[AttackBlock, None, Planner]:
        """Pull arms until the planner ends; returns it."""
        task = course.task
        plans = arms(task)
        knowing = {_short_name(each.name) for each in task.attacks if ATTACKS[each.name].need}
        survivors = len(course.rows)
        planner = Planner(
            arms=[
                Arm(each.name, survivor_cost(each), tried=each.name in knowing) for each in plans
            ],
            samples=len(task.labels),
            standing=np.isin(np.arange(len(task.labels)), course.rows.numpy()),
            budget=self.budget_share * sum(survivor_costs(task)),
            goal=self.goal * len(task.labels),
            most_rows=max(LEAST_ROWS, survivors // ROWS_SHARE),
        )
        number = 0
        while (pull := planner.next_pull()) is not None:
            done = yield from self._pulled(course, setup, plans[pull.arm], pull.rows, number)
            planner.learn(pull, *_outcome(task, pull, done))
            number += 1
        return planner

    def _look(
        self, course: Course, setup: Preparation, planner: Planner
    ) -> Generator[AttackBlock, None, str]:
        """Search at random around some samples that stand; returns why to escalate, if so."""
        task = course.task
        looked_at = planner.nearest_and_others(LOOKED_AT)
        if not len(looked_at):
            return ""
        threat = task.threat_model
        attack = square_for(threat.norm, threat.eps, queries=QUERIES)
        if task.images.shape[2] < attack.least_height:
            return ""
        blocks = yield from self._pulled(course, setup, _arm(LOOK, attack), looked_at, 97)
        broken = sum(len(each.witnesses.index) for each in blocks if each.witnesses is not None)
        if broken < MASKED_BREAKS:
            return ""
        return f"a random search broke {broken} of {len(looked_at)} samples that gradients left"

    def _pulled(
        self,
        course: Course,
        setup: Preparation,
        plan: AttackPlan,
        rows: npt.NDArray[np.int64],
        number: int,
    ) -> Generator[AttackBlock, None, list[AttackBlock]]:
        """Run one attack on some rows; yields new blocks, returns all; marks what breaks."""
        chain = self.chain(course, setup, [plan], number, None, nearest_first=plan.targets > 0)
        return (yield from course.through(chain, torch.from_numpy(rows)))


def _outcome(
    task: AttackTask, pull: Pull, blocks: Sequence[AttackBlock]
) -> tuple[npt.NDArray[np.bool_], dict[int, tuple[float, float]]]:
    """Return which of a pull's rows broke, and the margins that it found, by row."""
    place = {index: row for row, index in enumerate(task.indices.tolist())}
    broken: set[int] = set()
    margins: dict[int, tuple[float, float]] = {}
    for block in blocks:
        broken.update(broken_rows(task, block).tolist())
        if block.attempts is not None:  # what failed is not attacked again either
            failed = block.attempts.index[block.attempts.outcome == FAILED]
            broken.update(place[index] for index in failed.tolist())
        if block.margins is not None:
            found = zip(block.margins.index, block.margins.start, block.margins.best, strict=True)
            margins |= {place[int(index)]: (start, best) for index, start, best in found}
    return np.array([row in broken for row in pull.rows.tolist()], dtype=bool), margins


def _left(remaining: Remaining) -> dict[str, float | str]:
    """Return the record of what is left to break, in samples, so that rounds add up."""
    return {
        "express_breakable_expected": remaining.expected,
        "express_breakable_low": remaining.low,
        "express_breakable_high": remaining.high,
    }
