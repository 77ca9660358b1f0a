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
from torch import Tensor

from bench.attacks import ATTACKS, Attack, AttackPlan
from bench.attacks.auto_pgd import APGD
from bench.attacks.cosine_pgd import CosinePGD
from bench.attacks.losses import LOSSES, loss_for
from bench.attacks.square_by_norm import square_for
from bench.attacks.target_ranking import RANKED_CLASSES, nearest_wrong_classes
from bench.engines.acceleration import Accelerated
from bench.engines.engine import (
    AttackTask,
    Outlook,
    batches,
    broken_rows,
    plan,
    survivor_cost,
    survivor_costs,
)
from bench.engines.express_planner import Arm, Planner, Pull, Remaining
from bench.engines.fast import FastEngine, Prepared
from bench.engines.progress import Progress
from bench.engines.search import Rank, Search
from bench.store.records import AttackBlock
from bench.suites.suite import AttackChoice

GOAL = 0.0005
"""Share of the samples: with fewer expected to be left, the search ends."""

BUDGET_SHARE = 0.04
"""Of what the task's own attacks would cost on the samples that stand in the end."""

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
    ) -> Iterator[AttackBlock]:
        """Predict the clean images, pull arms until little is left, and say how much that is."""
        own = [plan(task, attack) for attack in task.attacks]
        prepared = yield from self.prepared(task, own, finished, report)
        if prepared is None:
            return
        task, standing = prepared.task, prepared.standing
        reason = "answers are random" if task.randomized else ""
        if not prepared.differentiable:
            reason = "the candidate has no gradient"
        record: dict[str, float | str] = {}
        if not reason:
            planner = yield from self._pull_arms(prepared, finished, report)
            reason = yield from self._look(prepared, planner, finished, report)
            record = _left(planner.remaining())
        if reason:
            record = {"express_escalated": reason}
            outlook = Outlook(survivor_costs(task))
            yield from self.attacks(
                own,
                prepared.fast,
                prepared.differentiable,
                outlook,
                finished,
                task,
                standing,
                report,
            )
        if f"99-{LEFT}-00000" not in finished:
            yield AttackBlock(key=f"99-{LEFT}-00000", seconds=0.0, record=record)

    def _pull_arms(
        self,
        prepared: Prepared,
        finished: Mapping[str, AttackBlock],
        report: Callable[[Progress], None],
    ) -> Generator[AttackBlock, None, Planner]:
        """Pull arms until the planner ends; returns it."""
        task, standing = prepared.task, prepared.standing
        plans = arms(task)
        knowing = {_short_name(each.name) for each in task.attacks if ATTACKS[each.name].need}
        rank = TargetOrder(task, prepared.fast)
        survivors = int(standing.sum())
        planner = Planner(
            arms=[
                Arm(each.name, survivor_cost(each), tried=each.name in knowing) for each in plans
            ],
            samples=len(standing),
            standing=standing.numpy().copy(),
            budget=self.budget_share * sum(survivor_costs(task)),
            goal=self.goal * len(standing),
            most_rows=max(LEAST_ROWS, survivors // ROWS_SHARE),
        )
        stage = 0
        while (pull := planner.next_pull()) is not None:
            blocks = self._pulled(
                prepared, plans[pull.arm], pull.rows, stage, rank, finished, report
            )
            done = yield from blocks
            planner.learn(pull, *_outcome(task, pull, done))
            stage += 1
        return planner

    def _look(
        self,
        prepared: Prepared,
        planner: Planner,
        finished: Mapping[str, AttackBlock],
        report: Callable[[Progress], None],
    ) -> Generator[AttackBlock, None, str]:
        """Search at random around some samples that stand; returns why to escalate, if so."""
        task = prepared.task
        looked_at = planner.nearest_and_others(LOOKED_AT)
        if not len(looked_at):
            return ""
        threat = task.threat_model
        attack = square_for(threat.norm, threat.eps, queries=QUERIES)
        if task.images.shape[2] < attack.least_height:
            return ""
        look = _arm(LOOK, attack)
        blocks = yield from self._pulled(prepared, look, looked_at, 97, None, finished, report)
        broken = sum(len(each.witnesses.index) for each in blocks if each.witnesses is not None)
        if broken < MASKED_BREAKS:
            return ""
        return f"a random search broke {broken} of {len(looked_at)} samples that gradients left"

    def _pulled(
        self,
        prepared: Prepared,
        plan: AttackPlan,
        rows: npt.NDArray[np.int64],
        stage: int,
        rank: Rank | None,
        finished: Mapping[str, AttackBlock],
        report: Callable[[Progress], None],
    ) -> Generator[AttackBlock, None, list[AttackBlock]]:
        """Run one attack on some rows; yields new blocks, returns all; marks what breaks."""
        task, standing = prepared.task, prepared.standing
        chosen = torch.zeros_like(standing)
        chosen[torch.from_numpy(rows)] = True
        outlook = Outlook([0.0] * stage + [survivor_cost(plan)])
        search = Search(
            task, plan, prepared.fast, task.batch_size, stage, self.precision, outlook, rank
        )
        others = int(standing.sum()) - len(rows)

        def told(progress: Progress) -> None:
            report(replace(progress, robust=progress.robust + others, examples=len(standing)))

        done = [block for key, block in finished.items() if key.startswith(search.prefix)]
        for block in search.run(chosen, finished, told):
            yield block
            done.append(block)
        for block in done:
            standing[broken_rows(task, block)] = False
        return done


class TargetOrder:
    """The wrong classes of samples, nearest boundary first; each sample's worked out once."""

    def __init__(self, task: AttackTask, fast: Accelerated) -> None:
        self._task = task
        self._fast = fast
        self._known = torch.full((len(task.labels), min(RANKED_CLASSES, task.classes - 1)), -1)

    def __call__(self, rows: Tensor, count: int) -> Tensor:
        """Return (n, at most `count`) int64 for rows (n,); see `Rank`."""
        task = self._task
        unknown = rows[self._known[rows, 0] < 0]
        for part in batches(unknown, task.batch_size):
            images = task.images[part].to(task.device)
            labels = task.labels[part].to(task.device)
            norm = task.threat_model.norm
            classes = nearest_wrong_classes(self._fast.model, images, labels, norm)
            self._known[part] = classes.cpu()
        return self._known[rows, :count]


def _outcome(
    task: AttackTask, pull: Pull, blocks: Sequence[AttackBlock]
) -> tuple[npt.NDArray[np.bool_], dict[int, tuple[float, float]]]:
    """Return which of a pull's rows broke, and the margins that it found, by row."""
    place = {index: row for row, index in enumerate(task.indices.tolist())}
    broken: set[int] = set()
    margins: dict[int, tuple[float, float]] = {}
    for block in blocks:
        broken.update(broken_rows(task, block).tolist())
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
