"""How long an evaluation will take, from a few measured passes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from bench.decision import classes_of
from bench.engines import Task
from bench.engines.engine import plan

MEASURED_BATCHES = 3


@dataclass(frozen=True)
class Estimate:
    """Bounds on the time of an evaluation, in seconds.

    Attributes:
        low: if the first attack broke every sample.
        high: if every sample that is right without attack survived all attacks.
    """

    low: float
    high: float


def estimate(task: Task) -> Estimate:
    """Measure a few batches of a task's candidate and extrapolate to the whole task.

    The time of a certification is that of all its draws, which a sequential one seldom needs.
    """
    size = min(task.batch_size, len(task.labels))
    images = task.images[:size].to(task.device)
    labels = task.labels[:size].to(task.device)
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

    forward_seconds = _seconds(forward) / size
    if task.smoothing is not None:
        draws = task.smoothing.selection_samples + task.smoothing.noise_samples
        seconds = len(task.labels) * draws * forward_seconds
        return Estimate(seconds, seconds)
    gradient_seconds = _seconds(gradient) / size
    costs = []
    for attack in task.attacks:
        passes = plan(task, attack).most_passes
        costs.append(passes.forward * forward_seconds + passes.forward_backward * gradient_seconds)
    clean = len(task.labels) * forward_seconds
    attacked = len(task.labels) * right
    return Estimate(clean + attacked * costs[0], clean + attacked * sum(costs))


def _seconds(work: Callable[[], None]) -> float:
    """Median time of a piece of work, after a warm-up."""
    work()
    times = []
    for _ in range(MEASURED_BATCHES):
        start = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2]
