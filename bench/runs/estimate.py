"""Estimate how long an evaluation will take from a few measured passes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

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
    """Bounds on the time of an evaluation, in seconds.

    Attributes:
        low: the time if the first attack broke every sample.
        high: the time if every sample that is right without attack survived all attacks.
    """

    low: float
    high: float


def estimate_attacks(task: AttackTask) -> Estimate:
    """Measure a few batches of a task's candidate and extrapolate to all its attacks."""
    return _fitted(task, lambda images, labels: _attacks_on(task, images, labels))


def _attacks_on(task: AttackTask, images: Tensor, labels: Tensor) -> Estimate:
    right = 0.0

    def forward() -> None:
        nonlocal right
        with torch.no_grad():
            right = float((classes_of(task.module(images)) == labels).float().mean())

    def gradient() -> None:
        inputs = images.clone().requires_grad_()
        loss = nn.functional.cross_entropy(task.module(inputs).float(), labels)
        if loss.requires_grad:
            torch.autograd.grad(loss, inputs, allow_unused=True)

    forward_seconds = _seconds(forward, task.device) / len(images)
    gradient_seconds = _seconds(gradient, task.device) / len(images)
    costs = []
    for attack in task.attacks:
        passes = plan(task, attack).most_passes
        costs.append(passes.forward * forward_seconds + passes.forward_backward * gradient_seconds)
    clean = len(task.labels) * forward_seconds
    attacked = len(task.labels) * right
    if task.eps_curve:
        few, gradients = curve_cost(task)
        clean += attacked * (few * forward_seconds + gradients * gradient_seconds)
    return Estimate(clean + attacked * costs[0], clean + attacked * sum(costs))


def estimate_votes(task: CertificationTask) -> Estimate:
    """Measure a few batches and extrapolate to all draws; a sequential run seldom needs them."""
    draws = task.smoothing.selection_samples + task.smoothing.noise_samples

    def votes(images: Tensor, _: Tensor) -> Estimate:
        def forward() -> None:
            with torch.no_grad():
                task.module(images)

        seconds = _seconds(forward, task.device) / len(images)
        return Estimate(*[len(task.labels) * draws * seconds] * 2)

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
