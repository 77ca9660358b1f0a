"""APGD from given points, as one plain loop over batches."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bench.attacks import AttackPlan, keyed_draws, select
from bench.attacks.auto_pgd import APGD
from bench.engines.engine import Task, batches
from bench.errors import InputError
from bench.precision import tensor_cores


class PointSearch:
    """One APGD from given points."""

    def __init__(
        self, model: Callable[[Tensor], Tensor], plan: AttackPlan, task: Task, precision: str
    ) -> None:
        if not isinstance(plan.attack, APGD):
            raise InputError(f"expected a sweep's attacks to be APGD, got {plan.name}")
        self.model = model
        self.plan = plan
        self.attack: APGD = plan.attack
        self.task = task
        self.precision = precision

    def random_points(self, rows: Tensor, rank: int) -> Tensor:
        """Return the attack's own starts, for samples that no search at another weight knows."""
        device = self.task.device
        if not len(rows):
            return self.task.images[:0]
        draws = keyed_draws(
            self.task.seed,
            self.task.indices[rows].to(device),
            self.plan.name,
            restarts=0,
            targets=rank + 1 if self.plan.targets else 0,
        )
        images, labels = self.task.images[rows].to(device), self.task.labels[rows].to(device)
        targets = labels if self.plan.targets else None
        return self.attack.start(images, labels, draws, targets).point.cpu()

    def run(
        self, rows: Tensor, points: Tensor, targets: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Search until broken or at the end of the budget.

        Args:
            rows: (n,) of the task.
            points: (n, ...) where to start.
            targets: (N,) classes to reach, of all samples of the task.

        Returns:
            best images (n, ...), whether they broke the sample (n,), and steps taken (n,).
        """
        images = points.clone()
        broken = torch.zeros(len(rows), dtype=torch.bool)
        steps = torch.zeros(len(rows), dtype=torch.int64)
        device = self.task.device
        for part in batches(torch.arange(len(rows)), self.task.batch_size):
            chosen = rows[part]
            state = self.attack.start_at(
                points[part].to(device),
                self.task.images[chosen].to(device),
                self.task.labels[chosen].to(device),
                None if targets is None else targets[chosen].to(device),
            )
            places = part
            while len(places):
                with tensor_cores(self.precision == "tf32"):
                    self.attack.step(self.model, state)
                done = self.attack.finished(state)
                if not bool(done.any()):
                    continue
                at = places[done.cpu()]
                images[at] = self.attack.images(state)[done].cpu()
                broken[at] = state.broken[done].cpu()
                steps[at] = state.iteration[done].cpu()
                places, state = places[~done.cpu()], select(state, ~done)
        return images, broken, steps
