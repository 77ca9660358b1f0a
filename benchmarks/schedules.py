"""Published schedules of attacks, on this package's engine, so that only the schedules differ."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bench.attacks import AttackPlan
from bench.engines import AttackTask
from bench.engines.engine import GRADIENT_COST, Outlook, plan, survivor_cost
from bench.engines.fast import FastEngine
from bench.engines.search import Rank, Search
from bench.store.records import AttackBlock


@dataclass(frozen=True)
class Point:
    """Where a course stood.

    Attributes:
        cost: forward passes of all samples so far.
        standing: samples.
    """

    cost: float
    standing: int


class Course:
    """Attacks on a task's samples one after the other, with what they cost so far.

    Attributes:
        task: with a batch size that fits.
        standing: (N,) bool, samples that are right and that nothing broke.
        fast: the candidate as attacks call it.
        cost: forward passes so far, a gradient's counted as `GRADIENT_COST`.
        points: after every attack, the first before any.
        margins: (N,) the highest margin that an attack measured; NaN where none did.
    """

    def __init__(self, task: AttackTask) -> None:
        own = [plan(task, each) for each in task.attacks]
        steps = FastEngine().prepared(task, own, {}, lambda _: None)
        try:
            while True:
                next(steps)
        except StopIteration as stop:
            prepared = stop.value
        self.task: AttackTask = prepared.task
        self.standing: Tensor = prepared.standing
        self.fast = prepared.fast
        self.cost = 0.0
        self.points = [Point(0.0, int(self.standing.sum()))]
        self.margins = torch.full((len(self.standing),), float("nan"))
        self._place = {index: row for row, index in enumerate(task.indices.tolist())}

    def use_seed(self, seed: int) -> None:
        """Let further attacks draw from another seed."""
        self.task = replace(self.task, seed=seed)

    def attack(self, attack: AttackPlan, rows: Tensor | None = None, rank: Rank | None = None) -> None:
        """Run an attack on those of the rows (n,) that stand; None: on all that stand."""
        chosen = self.standing.clone()
        if rows is not None:
            chosen = torch.zeros_like(chosen)
            chosen[rows] = self.standing[rows]
        if not bool(chosen.any()):
            return
        outlook = Outlook([survivor_cost(attack)])
        search = Search(
            self.task, attack, self.fast, self.task.batch_size, 0, "float32", outlook, rank
        )
        before = chosen.clone()
        for block in search.run(chosen, {}, lambda _: None):
            self._count(block)
        self.standing[before & ~chosen] = False
        self.points.append(Point(self.cost, int(self.standing.sum())))

    def _count(self, block: AttackBlock) -> None:
        """Add a block's passes, and keep its margins."""
        if block.attempts is not None:
            forward = float(block.attempts.forward_passes.sum())
            backward = float(block.attempts.backward_passes.sum())
            self.cost += forward + GRADIENT_COST * backward
        if block.margins is not None:
            rows = torch.tensor([self._place[index] for index in block.margins.index.tolist()])
            best = torch.from_numpy(block.margins.best).to(self.margins)
            self.margins[rows] = torch.fmax(self.margins[rows], best)
