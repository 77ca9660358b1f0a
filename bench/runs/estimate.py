"""Estimate how long an evaluation will take from a few measured passes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from bench.decision import classes_of
from bench.engines import AttackTask, CertificationTask, Task
from bench.engines.compilation import wait_for
from bench.engines.engine import plan
from bench.engines.smallest import curve_cost
from bench.memory.out_of_memory import with_as_many_as_fit

MEASURED_BATCHES = 3


@dataclass(frozen=True)
class Estimate:
    """Bounds on the time of an evaluation by one worker, in seconds.

    Attributes:
        low: the time if the first attack broke every sample.
        high: the time if every sample that is right without attack survived all attacks.
        alone: the time of one sample that survives all attacks, on its own; no number of workers
            is faster.
    """

    low: float
    high: float
    alone: float = 0.0

    def shared(self, workers: int) -> Estimate:
        """Return the time until the last of several workers ends.

        No worker waits while a sample waits, so it is at most total / workers + (1 - 1 / workers) x
        longest (Graham 1966, "Bounds for certain multiprocessing anomalies").
        """
        high = self.high / workers + (1 - 1 / workers) * self.alone
        return Estimate(self.low / workers, high, self.alone)

    def of(self, share: float) -> Estimate:
        """Return the estimate for so many times the samples."""
        return replace(self, low=self.low * share, high=self.high * share)


def estimate_attacks(task: AttackTask) -> Estimate:
    """Measure a few batches of a task's candidate and extrapolate to all its attacks."""
    return _fitted(task, lambda images, labels: _attacks_on(task, images, labels))


def _attacks_on(task: AttackTask, images: Tensor, labels: Tensor) -> Estimate:
    with torch.no_grad():
        right = float((classes_of(task.module(images)) == labels).float().mean())
    each = _pass_seconds(task, images, labels)
    alone = _pass_seconds(task, images[:1], labels[:1])
    passes = [plan(task, attack).most_passes for attack in task.attacks]
    costs = [(most.forward, most.forward_backward) for most in passes]
    # The search for an eps curve takes as long whatever the attacks break.
    fixed = curve_cost(task) if task.eps_curve else (0.0, 0.0)
    attacked = len(task.labels) * right
    clean = len(task.labels) * each[0] + attacked * _product(fixed, each)
    return Estimate(
        low=clean + attacked * _product(costs[0], each),
        high=clean + attacked * sum(_product(cost, each) for cost in costs),
        alone=alone[0] + sum(_product(cost, alone) for cost in (fixed, *costs)),
    )


def _pass_seconds(task: AttackTask, images: Tensor, labels: Tensor) -> tuple[float, float]:
    """Return how long an image takes in a forward pass, and in one with a gradient."""

    def forward() -> None:
        with torch.no_grad():
            task.module(images)

    def gradient() -> None:
        inputs = images.clone().requires_grad_()
        loss = nn.functional.cross_entropy(task.module(inputs).float(), labels)
        if loss.requires_grad:
            torch.autograd.grad(loss, inputs, allow_unused=True)

    count = len(images)
    return _seconds(forward, task.device) / count, _seconds(gradient, task.device) / count


def _product(passes: tuple[float, float], seconds: tuple[float, float]) -> float:
    return passes[0] * seconds[0] + passes[1] * seconds[1]


def estimate_votes(task: CertificationTask) -> Estimate:
    """Measure a few batches and extrapolate to all draws; a sequential run seldom needs them."""
    draws = task.smoothing.selection_samples + task.smoothing.noise_samples

    def votes(images: Tensor, _: Tensor) -> Estimate:
        def forward() -> None:
            with torch.no_grad():
                task.module(images)

        seconds = _seconds(forward, task.device) / len(images)
        total = len(task.labels) * draws * seconds
        return Estimate(total, total, draws * seconds)

    return _fitted(task, votes)


def _fitted(task: Task, measure: Callable[[Tensor, Tensor], Estimate]) -> Estimate:
    """Measure on a full batch, as runs make them, of images and labels on the task's device.

    A GPU takes as long for a few images as for hundreds.
    """

    def measured(count: int) -> Estimate:
        rows = torch.arange(count) % len(task.labels)
        return measure(task.images[rows].to(task.device), task.labels[rows].to(task.device))

    size = task.batch_size
    if task.device.type == "cpu":
        size = min(size, len(task.labels))
    return with_as_many_as_fit(size, measured)


def _seconds(work: Callable[[], None], device: torch.device) -> float:
    """Return the median time of a piece of work on a device, after a warm-up."""
    work()
    wait_for(device)
    times = []
    for _ in range(MEASURED_BATCHES):
        start = time.perf_counter()
        work()
        wait_for(device)
        times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2]
