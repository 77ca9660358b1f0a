"""Published schedules of attacks on this package's engine, so that only the schedules differ.

* AutoAttack's own order (Croce and Hein 2020, arXiv 2003.01690).
* A3 (Y. Liu et al. 2022, arXiv 2203.05154): rounds from starts that earlier successes bias; later
  rounds only for the survivors whose margin came nearest to zero.
* MALT (O. Melamed et al. 2024, arXiv 2407.02240): Auto-PGD on the cross-entropy, then towards the
  nine classes, of the hundred likeliest, whose boundary is nearest to first order.
* PMA (arXiv 2411.15210): half the steps on the probability of the label, half on the margin of
  probabilities, each with a cosine schedule.

They are written anew from the papers' descriptions. Where a paper leaves something open, or learns
it from data, what is done instead stands beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.attacks import AttackPlan, Model
from bench.attacks.attack import comparable, finite
from bench.attacks.auto_pgd import APGD, APGDState
from bench.attacks.distances import Norm
from bench.attacks.draws import Draws, keyed_draws
from bench.attacks.losses import margin
from bench.attacks.target_ranking import nearest_wrong_classes
from bench.engines import AttackTask
from bench.engines.engine import GRADIENT_COST, batches, broken_rows, plan
from bench.engines.fast import FastEngine
from bench.engines.search import Rank, Search
from bench.executors.in_process import InProcess
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
        points: one for every break, and one at every attack's end.
        margins: (N,) the highest margin that an attack measured; -inf where none did.
    """

    def __init__(self, task: AttackTask) -> None:
        own = [plan(task, each) for each in task.attacks]
        executor = InProcess()
        steps = FastEngine().begun(task, own, {}, lambda _: None, executor)
        try:
            while True:
                next(steps)
        except StopIteration as stop:
            course, setup = stop.value
        prepared = executor.worker(task).prepared(setup)
        self.task: AttackTask = replace(task, batch_size=prepared.sizes[""])
        self.standing: Tensor = torch.zeros(len(task.labels), dtype=torch.bool)
        self.standing[course.rows] = True
        self.fast = prepared.fast
        self.cost = 0.0
        self.points = [Point(0.0, int(self.standing.sum()))]
        self.margins = torch.full((len(self.standing),), -torch.inf)
        self._place = {index: row for row, index in enumerate(task.indices.tolist())}

    def use_seed(self, seed: int) -> None:
        """Let further attacks draw from another seed."""
        self.task = replace(self.task, seed=seed)

    def attack(
        self, attack: AttackPlan, rows: Tensor | None = None, rank: Rank | None = None
    ) -> list[AttackBlock]:
        """Run an attack on those of the rows (n,) that stand, None: on all; return its blocks."""
        chosen = self.standing.clone()
        if rows is not None:
            chosen = torch.zeros_like(chosen)
            chosen[rows] = self.standing[rows]
        if not bool(chosen.any()):
            return []
        places = chosen.nonzero().flatten()
        part = self.task.part(places)
        own = None if rank is None else lambda some, count: rank(places[some], count)
        search = Search(part, attack, self.fast, part.batch_size, 0, "float32", own)
        blocks = list(search.run(lambda _: None))
        for block in blocks:
            self.standing[broken_rows(self.task, block)] = False
        self.points += points_of(blocks, self.points[-1])
        self.cost = self.points[-1].cost
        for block in blocks:
            if block.margins is not None:
                at = torch.tensor([self._place[index] for index in block.margins.index.tolist()])
                best = torch.from_numpy(block.margins.best).to(self.margins)
                self.margins[at] = torch.fmax(self.margins[at], best)
        return blocks

    def ranked(self, passes: float, rank: Rank) -> Rank:
        """Return a rank whose passes for each sample count as cost."""

        def counted(rows: Tensor, count: int) -> Tensor:
            self.pay(passes * len(rows))
            return rank(rows, count)

        return counted

    def pay(self, passes: float) -> None:
        """Count passes that no attack made."""
        self.cost += passes
        self.points.append(Point(self.cost, self.points[-1].standing))


def points_of(blocks: Sequence[AttackBlock], last: Point) -> list[Point]:
    """Return the points of one attack, as if its samples went step by step at the same time.

    Args:
        blocks: of one attack on samples that stood.
        last: the point at which it began.
    """
    attempts = [block.attempts for block in blocks if block.attempts is not None]
    if not attempts:
        return []
    passes = np.concatenate(
        [each.forward_passes + GRADIENT_COST * each.backward_passes for each in attempts]
    )
    broke = np.concatenate([each.outcome == "broken" for each in attempts])
    depths = np.append(np.sort(passes[broke]), passes.max(initial=0.0))
    return [
        Point(
            last.cost + float(np.minimum(passes, depth).sum()),
            last.standing - int((broke & (passes <= depth)).sum()),
        )
        for depth in np.unique(depths)
    ]


class Schedule(APGD):
    """Projected gradient descent whose step sizes and whose direction at each step are given.

    The loss that it keeps the best point of is the margin, whatever it ascends.
    """

    def __init__(
        self,
        norm: Norm,
        eps: float,
        sizes: Sequence[float],
        ascended: Callable[[Tensor, APGDState], Tensor],
        momentum: float = 1.0,
    ) -> None:
        """Make an attack.

        Args:
            sizes: of each step, in radii.
            ascended: from logits (N, K) and the state to (N,) what the next step ascends.
            momentum: see `APGD`.
        """
        super().__init__(norm, eps, margin, steps=len(sizes), momentum=momentum)
        self._sizes = torch.tensor([*sizes, sizes[-1]]) * eps
        self._ascended = ascended

    def adapt_step_size(
        self, state: APGDState, losses: Tensor, first: Tensor, searching: Tensor
    ) -> Tensor:
        """Set each item's step size to its place in the schedule; no item goes back."""
        sizes = self._sizes.to(losses)
        state.step_size.copy_(sizes[state.iteration.clamp(max=self.steps - 1)])
        state.checkpoint_loss.copy_(torch.where(first & searching, losses, state.checkpoint_loss))
        return torch.zeros_like(searching)

    def evaluate(self, model: Model, state: APGDState) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits, margins, and the gradients of what is ascended."""
        images = state.point.detach().requires_grad_()
        with torch.enable_grad():
            logits = model(images).to(images.dtype)
            (gradient,) = torch.autograd.grad(self._ascended(logits, state).sum(), images)
        logits = logits.detach()
        return logits, comparable(margin(logits, state.labels, state.targets)), finite(gradient)

    def margins(self, state: APGDState) -> tuple[Tensor, Tensor]:
        """Return the margins (N,) at the start and at the best point."""
        return state.checkpoint_loss, state.best_loss


def falling(steps: int, largest: float, smallest: float) -> list[float]:
    """Return step sizes that fall along half a cosine, in radii."""
    turn = np.cos(np.pi * np.arange(steps) / steps)
    return [float(size) for size in smallest + (largest - smallest) * (1 + turn) / 2]


# ---- AutoAttack and MALT: attacks of the package, in another order of classes -------------------


def autoattack(course: Course) -> None:
    """Run the task's own attacks."""
    for choice in course.task.attacks:
        course.attack(plan(course.task, choice))


MALT_CLASSES = 100


def malt(course: Course) -> None:
    """Run Auto-PGD on the cross-entropy, then towards the nearest classes."""
    task = course.task
    by_name = {choice.name: plan(task, choice) for choice in task.attacks}
    course.attack(by_name["apgd-ce"])
    ranked = min(MALT_CLASSES, task.classes - 1)

    def nearest(rows: Tensor, count: int) -> Tensor:
        found = [
            nearest_wrong_classes(
                course.fast.model,
                task.images[part].to(task.device),
                task.labels[part].to(task.device),
                task.threat_model.norm,
                ranked,
            )
            for part in batches(rows, task.batch_size)
        ]
        return torch.cat(found)[:, :count].cpu()

    # A pass forward, and one back for each class.
    rank = course.ranked(1 + (GRADIENT_COST - 1) * ranked, nearest)
    course.attack(by_name["apgd-t"], rank=rank)


# ---- PMA ----------------------------------------------------------------------------------------

PMA_STEPS = 100


def pma(course: Course) -> None:
    """Run one start of two hundred steps."""

    def ascended(logits: Tensor, state: APGDState) -> Tensor:
        logs = logits.log_softmax(dim=1)
        label = logs.gather(1, state.labels.unsqueeze(1)).squeeze(1)
        others = logs.scatter(1, state.labels.unsqueeze(1), -torch.inf).max(dim=1).values
        # Divided by a constant, so that no probability underflows: only the direction counts.
        largest = torch.maximum(label, others).detach()
        margins = (others - largest).exp() - (label - largest).exp()
        return torch.where(state.iteration < PMA_STEPS, -label, margins)

    threat = course.task.threat_model
    sizes = 2 * falling(PMA_STEPS, 2.0, 0.0)
    attack = Schedule(threat.norm, threat.eps, sizes, ascended, momentum=0.75)
    course.attack(AttackPlan("pma", attack, 0, 1, {}, ""))


# ---- A3 -----------------------------------------------------------------------------------------

A3_START_STEPS = 7
A3_ROUNDS = (
    *((1.0, steps, 1) for steps in (15, 15, 20, 25)),
    *((share, steps, 2) for share, steps in ((0.7, 30), (0.5, 35), (0.3, 40))),
    *((share, steps, 4) for share, steps in ((0.2, 45), (0.12, 50), (0.06, 60), (0.03, 60))),
)
"""Of each round: the share of survivors, those with the highest margin; steps; starts."""
_DIRECTION_EVENT = 1
"""The points where searches start are event 0 of an item's stream."""


@dataclass(frozen=True)
class DirectedState(APGDState):
    """See `APGDState`.

    Attributes:
        direction: (N, K) weights of the logits that the first steps ascend.
    """

    direction: Tensor


class DirectedStarts(Schedule):
    """Descent on the margin that starts by ascending a weighted sum of the logits."""

    def __init__(
        self, norm: Norm, eps: float, steps: int, classes: int, learnt: tuple[float, float] | None
    ) -> None:
        """Make an attack.

        Args:
            steps: after those of the start.
            classes: K.
            learnt: mean weights of the label and of the target where searches succeeded; None:
                all weights are drawn uniformly.
        """
        sizes = [1.0] * A3_START_STEPS + falling(steps, 1.0, 0.1)
        super().__init__(norm, eps, sizes, self._directed)
        self._targeted = learnt is not None
        self.classes = classes
        self.learnt = learnt

    def directions(self, labels: Tensor, targets: Tensor | None, draws: Draws) -> Tensor:
        """Return the weights (N, K) of items."""
        events = torch.full_like(labels, _DIRECTION_EVENT)
        weights = 2 * draws.uniform(events, self.classes, torch.float32) - 1
        if self.learnt is not None and targets is not None:
            for column, mean in ((labels, self.learnt[0]), (targets, self.learnt[1])):
                column = column.unsqueeze(1)
                around = mean + 0.3 * weights.gather(1, column)
                weights = weights.scatter(1, column, around.clamp(-1, 1))
        return weights

    def start(
        self,
        images: Tensor,
        labels: Tensor,
        draws: Draws,
        targets: Tensor | None = None,
        restarts: Tensor | None = None,
    ) -> DirectedState:
        """Start from a random point, with a direction."""
        state = super().start(images, labels, draws, targets, restarts)
        values = {field.name: getattr(state, field.name) for field in fields(state)}
        return DirectedState(**values, direction=self.directions(labels, targets, draws).to(images))

    def _directed(self, logits: Tensor, state: APGDState) -> Tensor:
        assert isinstance(state, DirectedState)
        along = (state.direction * logits).sum(dim=1)
        starting = state.iteration < A3_START_STEPS
        return torch.where(starting, along, margin(logits, state.labels, state.targets))


def a3(course: Course) -> None:
    """Run the rounds.

    The paper keeps the directions that succeeded, by class; with few hundred images the means of
    the label's and of the new class's weight are kept, over all successes, and the target is the
    likeliest wrong class, in the next round the second, and so on.
    """
    task = course.task
    norm, eps = task.threat_model.norm, task.threat_model.eps
    successes: list[Tensor] = []
    for number, (share, steps, restarts) in enumerate(A3_ROUNDS):
        learnt = None
        if successes:
            label, target = torch.cat(successes).mean(dim=0).tolist()
            learnt = (label, target)
        attack = DirectedStarts(norm, eps, steps, task.classes, learnt)
        targets = 0 if learnt is None else 1
        first = number % min(9, task.classes - 1)
        each = AttackPlan(f"a3-{number}", attack, targets, restarts, {}, "", first_target=first)
        rows = course.standing.nonzero().flatten()
        # The first round has measured every margin before a round leaves samples out.
        nearest = course.margins[rows].argsort(descending=True, stable=True)
        rows = rows[nearest[: max(1, round(share * len(rows)))]].sort().values
        successes += [
            _succeeded(task, each, block, learnt)
            for block in course.attack(each, rows)
            if block.witnesses is not None
        ]


def _succeeded(
    task: AttackTask, plan: AttackPlan, block: AttackBlock, learnt: tuple[float, float] | None
) -> Tensor:
    """Return (n, 2) the weights of the label and of the new class in directions that succeeded."""
    witnesses, attempts = block.witnesses, block.attempts
    assert witnesses is not None
    assert attempts is not None
    assert isinstance(plan.attack, DirectedStarts)
    iteration = dict(zip(attempts.index.tolist(), attempts.iteration.tolist(), strict=True))
    restarts = torch.tensor(
        [(iteration[index] - 1) // plan.attack.steps for index in witnesses.index.tolist()]
    )
    place = {index: row for row, index in enumerate(task.indices.tolist())}
    labels = task.labels[torch.tensor([place[index] for index in witnesses.index.tolist()])]
    predicted = torch.from_numpy(witnesses.prediction).clamp(min=0)
    # A search that was aimed for a class has broken to it, as a rule.
    targeted = learnt is not None
    draws = keyed_draws(
        task.seed,
        torch.from_numpy(witnesses.index),
        plan.name,
        restarts=restarts,
        targets=plan.first_target + 1 if targeted else 0,
    )
    weights = plan.attack.directions(labels, predicted if targeted else None, draws)
    return torch.stack([weights.gather(1, each[:, None])[:, 0] for each in (labels, predicted)], 1)


SCHEDULES: dict[str, Callable[[Course], Any]] = {
    "AutoAttack": autoattack,
    "A3": a3,
    "MALT": malt,
    "PMA": pma,
}
"""By name; express is measured by its own engine."""
