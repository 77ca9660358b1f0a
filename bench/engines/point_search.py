"""APGD from given points, as one plain loop over batches."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bench.attacks import AttackPlan, keyed_draws, select
from bench.attacks.attack import STEPS_BETWEEN_LOOKS
from bench.attacks.auto_pgd import APGD
from bench.engines.engine import Task
from bench.errors import InputError
from bench.memory.out_of_memory import ImagesAtOnce
from bench.memory.transfer import send
from bench.precision import tensor_cores


class PointSearch:
    """One APGD from given points."""

    def __init__(
        self,
        model: Callable[[Tensor], Tensor],
        plan: AttackPlan,
        task: Task,
        precision: str,
        at_once: ImagesAtOnce,
    ) -> None:
        if not isinstance(plan.attack, APGD):
            raise InputError(f"expected a sweep's attacks to be APGD, got {plan.name}")
        self.model = model
        self.plan = plan
        self.attack: APGD = plan.attack
        self.task = task
        self.precision = precision
        self.at_once = at_once

    def random_points(self, rows: Tensor, rank: int) -> Tensor:
        """Return the attack's own starts, for samples that no search at another weight knows."""

        def points(part: Tensor) -> Tensor:
            device = self.task.device
            draws = keyed_draws(
                self.task.seed,
                self.task.indices[part],
                self.plan.name,
                targets=rank + 1 if self.plan.targets else 0,
            ).to(device)
            images = send(self.task.images[part], device)
            labels = send(self.task.labels[part], device)
            targets = labels if self.plan.targets else None
            return self.attack.start(images, labels, draws, targets).point.cpu()

        return torch.cat([self.task.images[:0], *self.at_once.in_parts(rows, points)])

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

        def search_part(part: Tensor) -> None:
            chosen = rows[part]
            aims = None if targets is None else targets[chosen]
            images[part], broken[part], steps[part] = self._searched(chosen, points[part], aims)

        self.at_once.in_parts(torch.arange(len(rows)), search_part)
        return images, broken, steps

    def _searched(
        self, rows: Tensor, points: Tensor, targets: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Search on one batch; see `run`, with a target a row.

        Finished items stay in the batch, unchanged, until fewer than half of it are left. What was
        found stays on the device until all are finished: the host waits for it once in
        `STEPS_BETWEEN_LOOKS` steps, to learn which items are, and once at the end.
        """
        device = self.task.device
        between = STEPS_BETWEEN_LOOKS[device.type]
        left = self.attack.steps
        state = self.attack.start_at(
            send(points, device),
            send(self.task.images[rows], device),
            send(self.task.labels[rows], device),
            None if targets is None else send(targets, device),
        )
        images = torch.empty_like(state.point)
        broken = torch.zeros_like(state.broken)
        steps = torch.zeros_like(state.iteration)
        places = torch.arange(len(rows))
        while len(places):
            with tensor_cores(self.precision == "tf32"):
                for _ in range(min(between, left)):
                    self.attack.step(self.model, state)
            left -= between
            # At the end of the budget all are finished, which the host knows without asking.
            done = self.attack.finished(state).cpu() if left > 0 else torch.ones_like(places) > 0
            leaving, staying = places_of(done), places_of(~done)
            if not len(leaving) or (between > 1 and 2 * len(staying) > len(places)):
                continue
            whole = not len(staying)
            gone = state if whole else select(state, send(leaving, device))
            at = send(places[leaving], device)
            images.index_copy_(0, at, self.attack.images(gone))
            broken.index_copy_(0, at, gone.broken)
            steps.index_copy_(0, at, gone.iteration)
            places = places[staying]
            if not whole:
                state = select(state, send(staying, device))
        searched = images.to("cpu", non_blocking=True)
        # The host waits for both copies here.
        found = torch.stack((broken.long(), steps)).cpu()
        return searched, found[0] > 0, found[1]


def places_of(marked: Tensor) -> Tensor:
    """Return the places (m,) int64 where `marked` (n,), of the host, is true."""
    return marked.nonzero().flatten()
