"""Estimate how long an evaluation will take from a few measured passes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.decision import classes_of
from bench.engines import AttackTask, CertificationTask, Task
from bench.engines.engine import plan
from bench.engines.smallest import curve_cost

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
    images, labels = _few(task)
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

    forward_seconds = _seconds(forward) / len(images)
    gradient_seconds = _seconds(gradient) / len(images)
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
    images, _ = _few(task)

    def forward() -> None:
        with torch.no_grad():
            task.module(images)

    draws = task.smoothing.selection_samples + task.smoothing.noise_samples
    seconds = len(task.labels) * draws * _seconds(forward) / len(images)
    return Estimate(seconds, seconds)


def _few(task: Task) -> tuple[Tensor, Tensor]:
    """Return the first batch of a task, on its device."""
    size = min(task.batch_size, len(task.labels))
    return task.images[:size].to(task.device), task.labels[:size].to(task.device)


def _seconds(work: Callable[[], None]) -> float:
    """Return the median time of a piece of work, after a warm-up."""
    work()
    times = []
    for _ in range(MEASURED_BATCHES):
        start = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2]
