"""The fast engine: the attacks of `bench.attacks` on full batches, confirmed in float32.

A sample's result depends on the candidate, the sample, the protocol and the seed; on nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.attacks import AttackPlan, Model
from bench.attacks.image_gradient import GradientError
from bench.engines.acceleration import PRECISIONS, TRIED_IMAGES, Accelerated, accelerate
from bench.engines.batch_size import filling_size, fitting_size
from bench.engines.compilation import compile_if_worth, pass_seconds
from bench.engines.convergence import (
    MOST_DOUBLINGS,
    SETTLED_SHARE,
    expected_share,
    harder_plans,
)
from bench.engines.differentiability import is_differentiable
from bench.engines.engine import (
    GRADIENT_COST,
    AttackTask,
    Outlook,
    batches,
    broken_rows,
    plan,
    survivor_cost,
    survivor_costs,
)
from bench.engines.prediction import MOST_CONFIRMATION_DRAWS, clean_results
from bench.engines.progress import Progress
from bench.engines.search import Search
from bench.engines.sharing import processes, share_out
from bench.engines.smallest import find_smallest
from bench.engines.trials import KEY, try_images
from bench.errors import InputError
from bench.memory.out_of_memory import ImagesAtOnce
from bench.store.records import AttackBlock, Attempts
from bench.store.tables import concatenate


@dataclass
class Prepared:
    """What attacks begin from.

    Attributes:
        task: with a batch size that fits into memory.
        standing: (N,) bool, samples that are right and that no known image breaks.
        fast: the candidate as the search calls it.
        differentiable: whether it has a gradient.
    """

    task: AttackTask
    standing: Tensor
    fast: Accelerated
    differentiable: bool


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
    ) -> Iterator[AttackBlock]:
        """Do the attacks; then, if asked for, look for each sample's smallest perturbation.

        Raises:
            InputError: an attack of the protocol is unknown or its parameters are wrong.
        """
        blocks = list(finished.values()) if task.eps_curve else []
        for block in self.attacked(task, finished, report):
            yield block
            if task.eps_curve:
                blocks.append(block)
        if task.eps_curve:
            yield from find_smallest(task, self.precision, blocks, report)

    def attacked(
        self,
        task: AttackTask,
        finished: Mapping[str, AttackBlock],
        report: Callable[[Progress], None],
    ) -> Iterator[AttackBlock]:
        """Predict the clean images, then attack by attack what still stands; see `run`."""
        plans = [plan(task, attack) for attack in task.attacks]
        prepared = yield from self.prepared(task, plans, finished, report)
        if prepared is None:
            return
        task, standing, differentiable = prepared.task, prepared.standing, prepared.differentiable
        fast = prepared.fast
        outlook = Outlook(survivor_costs(task))
        expected = _expected_seconds(task, fast, int(standing.sum()), outlook, differentiable)
        count = processes(task, int(standing.sum()), expected) if differentiable else 1
        if differentiable and count == 1:
            fast = _compiled_if_worth(task, fast, expected, finished)
        attacks = partial(self.attacks, plans, fast, differentiable, outlook, finished)
        if count > 1:
            fast.record["processes"] = str(count)
            yield from share_out(task, standing, count, finished, report, attacks)
            return
        yield from attacks(task, standing, report)
        if not task.until_converged or not differentiable:
            return
        shares: list[float] = []
        for doubling in range(1, MOST_DOUBLINGS + 1):
            before = int(standing.sum())
            if before == 0 or (shares and expected_share(shares) < SETTLED_SHARE):
                return
            for each in harder_plans(task, doubling):
                outlook.costs.append(survivor_cost(each))
                stage = len(outlook.costs) - 1
                search = Search(task, each, fast, task.batch_size, stage, self.precision, outlook)
                yield from search.run(standing, finished, report)
            shares.append(1 - int(standing.sum()) / before)

    def prepared(
        self,
        task: AttackTask,
        plans: Sequence[AttackPlan],
        finished: Mapping[str, AttackBlock],
        report: Callable[[Progress], None],
    ) -> Generator[AttackBlock, None, Prepared | None]:
        """Predict the clean images, try known ones, and make passes faster.

        Returns:
            what the attacks begin from; None if nothing stands.
        """
        standing = yield from _clean(task, task.batch_size, finished, report)
        if KEY in finished:
            standing[broken_rows(task, finished[KEY])] = False
        elif task.trials is not None:
            yield try_images(task, task.trials, standing)
        if not bool(standing.any()):
            return None
        rows = standing.nonzero().flatten()[: min(TRIED_IMAGES, task.batch_size)]
        fast = accelerate(task.module, task.images[rows].to(task.device), self.precision)
        differentiable = _has_gradient(fast.model, task, plans)
        size = fitting_size(fast.model, task, task.batch_size, differentiable)
        if size < task.batch_size:
            fast.record["batch size"] = f"{size} for {task.batch_size}, which memory cannot hold"
        return Prepared(replace(task, batch_size=size), standing, fast, differentiable)

    def attacks(
        self,
        plans: Sequence[AttackPlan],
        fast: Accelerated,
        differentiable: bool,
        outlook: Outlook,
        finished: Mapping[str, AttackBlock],
        task: AttackTask,
        standing: Tensor,
        report: Callable[[Progress], None],
    ) -> Iterator[AttackBlock]:
        """Attack by attack on what stands; `standing` (N,) is updated as samples break."""
        for stage, each in enumerate(plans):
            # A stand-in has a gradient even where the candidate itself has none at all.
            if each.needs_gradient and not (differentiable or each.view == "straight-through"):
                key = f"{stage + 1:02d}-{each.name}-00000"
                if key not in finished:
                    yield _skipped(task, each, key, standing)
                continue
            search = Search(task, each, fast, task.batch_size, stage, self.precision, outlook)
            yield from search.run(standing, finished, report)


def _clean(
    task: AttackTask,
    size: int,
    finished: Mapping[str, AttackBlock],
    report: Callable[[Progress], None],
) -> Generator[AttackBlock, None, Tensor]:
    """Predict all samples; return which (N,) are right."""
    standing = torch.zeros(len(task.labels), dtype=torch.bool)
    known = torch.zeros(len(task.labels), dtype=torch.bool)
    place = {index: row for row, index in enumerate(task.indices.tolist())}
    at_once = ImagesAtOnce(size)
    number = 0
    for key, block in finished.items():
        if block.clean is not None:
            rows = torch.tensor([place[index] for index in block.clean.index.tolist()])
            standing[rows] = torch.from_numpy(block.clean.prediction == block.clean.label)
            known[rows] = True
            number = max(number, int(key.rpartition("-")[2]) + 1)
    for rows in batches((~known).nonzero().flatten(), max(size, 1000)):
        start = time.perf_counter()
        clean = concatenate(at_once.in_parts(rows, lambda part: clean_results(task, part)))
        yield AttackBlock(
            key=f"00-clean-{number:05d}", seconds=time.perf_counter() - start, clean=clean
        )
        number += 1
        standing[rows] = torch.from_numpy(clean.prediction == clean.label)
        known[rows] = True
        done = int(known.sum())
        report(Progress("clean", done, len(standing), int(standing.sum()), done))
    return standing


def _expected_seconds(
    task: AttackTask,
    fast: Accelerated,
    standing: int,
    outlook: Outlook,
    differentiable: bool,
) -> float:
    """Return the seconds of the whole run in this process, as if all samples stood."""
    # A GPU takes as long for a few images as for hundreds, so a full batch is timed there.
    few = task.batch_size if task.device.type != "cpu" else min(task.batch_size, TRIED_IMAGES)
    rows = torch.arange(few) % len(task.images)
    images, labels = task.images[rows].to(task.device), task.labels[rows].to(task.device)
    passes = 1 + GRADIENT_COST if differentiable else 1
    each = pass_seconds(fast.model, images, labels if differentiable else None) / (few * passes)
    return standing * sum(outlook.costs) * each


def _compiled_if_worth(
    task: AttackTask,
    fast: Accelerated,
    expected_seconds: float,
    finished: Mapping[str, AttackBlock],
) -> Accelerated:
    rows = torch.arange(task.batch_size) % len(task.images)
    images, labels = task.images[rows].to(task.device), task.labels[rows].to(task.device)
    return compile_if_worth(fast, images, labels, expected_seconds, finished)


def _has_gradient(model: Model, task: AttackTask, plans: Sequence[AttackPlan]) -> bool:
    """Return whether attacks can have a gradient; an error counts only if one needs it."""
    try:
        return is_differentiable(model, task)
    except GradientError:
        if any(each.needs_gradient for each in plans):
            raise
        return False


def _skipped(task: AttackTask, plan: AttackPlan, key: str, standing: Tensor) -> AttackBlock:
    """Return the record of an attack that needs a gradient on a candidate that has none."""
    index = task.indices[standing].numpy()
    n, nothing = len(index), np.zeros(len(index))
    attempts = Attempts(
        index=index,
        attack=np.full(n, plan.name),
        outcome=np.full(n, "skipped"),
        iteration=np.full(n, -1),
        forward_passes=nothing,
        backward_passes=nothing,
        seconds=nothing,
    )
    return AttackBlock(key=key, seconds=0.0, attempts=attempts)
