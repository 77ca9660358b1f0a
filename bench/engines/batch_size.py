"""How many samples go through a network in one pass."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from bench.attacks import Model
from bench.attacks.image_gradient import image_gradient
from bench.engines.answering import answered_rows
from bench.engines.engine import Task
from bench.errors import FOREIGN_ERRORS, BenchError
from bench.memory.out_of_memory import with_as_many_as_fit
from bench.modules import uncompiled

FEW = 32
"""Samples that stand for all, where some of them cannot be passed."""
USUAL = {"cpu": 128, "cuda": 1024}
"""Images that fill the device with networks of usual size; a processor's cache holds no more."""
LARGEST = {"cpu": 512, "cuda": 8192}
FILLING_OPERATIONS = {"cpu": 2e9, "cuda": 1e12}
"""Operations in one pass: with fewer, a tiny network's calls cost more than its arithmetic."""
WITHOUT_GRADIENTS = 4
"""Without gradients no layer's output is kept, so a tiny network's batches may be this many times
as large."""
ENOUGH_OPERATIONS = {"cpu": 2e12, "cuda": 5e13}
"""Operations in one pass: with more, a huge network, or one with many inner passes, only needs more
memory."""


def operations(module: nn.Module, images: Tensor) -> float | None:
    """Return the operations of an image's forward pass, of convolutions and matrix products.

    Args:
        module: images (n, C, H, W) -> logits (n, K).
        images: a few, at least one.

    Returns:
        None if the module does not run on them.
    """
    try:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            uncompiled(module)(images.clone())
    except Exception:  # third-party modules: what is wrong with them is said elsewhere
        return None
    return float(counter.get_total_flops()) / len(images)


def filling_size(module: nn.Module, images: Tensor, *, gradients: bool = True) -> int:
    """Return the usual size, a larger one for tiny networks, a smaller one for huge ones.

    It follows from the network and the kind of device alone, not from a measurement, so that an
    interrupted run goes on with the same size.

    Args:
        module: images (n, C, H, W) -> logits (n, K).
        images: a few, on the module's device.
        gradients: whether passes will be differentiated.
    """
    device = images.device.type
    size = USUAL[device]
    largest = LARGEST[device] * (1 if gradients else WITHOUT_GRADIENTS)
    cost = operations(module, images[:1]) if len(images) else None
    if cost:
        while size < largest and size * cost < FILLING_OPERATIONS[device]:
            size *= 2
        while size > 1 and size * cost > ENOUGH_OPERATIONS[device]:
            size //= 2
    return size


def share_of_batch(size: int, workers: int, fills: int) -> int:
    """Return the images in a pass of one of several workers that share a machine's memory.

    All together take no more memory than one alone, unless their batches would be so small that
    passes cost more.

    Args:
        size: of one worker alone.
        workers: their number.
        fills: the images that fill a worker's device.
    """
    return max(size // workers, min(size, fills))


def busy_size(module: nn.Module, images: Tensor) -> int:
    """Return how many images keep the device busy in one pass; fewer take about as long.

    Args:
        module: images (n, C, H, W) -> logits (n, K).
        images: a few, on the module's device.
    """
    device = images.device.type
    cost = operations(module, images[:1]) if len(images) else None
    if not cost:
        return 1
    return max(1, min(LARGEST[device], math.ceil(FILLING_OPERATIONS[device] / cost)))


def fitting_size(model: Model, task: Task, size: int, differentiable: bool) -> int:
    """Halve a size until a pass, with its gradient if there is one, fits into memory.

    Samples on which the candidate raises an error are left to the run, which records them.
    """
    samples = torch.arange(min(size, len(task.images)))

    def passed(count: int) -> int:
        rows = samples[torch.arange(count) % len(samples)]
        images, labels = task.images[rows].to(task.device), task.labels[rows].to(task.device)
        if differentiable:
            image_gradient(model, images, labels)
        else:
            with torch.no_grad():
                model(images)
        return count

    try:
        return with_as_many_as_fit(size, passed)
    except BenchError:
        raise
    except FOREIGN_ERRORS:
        samples = answered_rows(model, task.images[:FEW].to(task.device))
        return with_as_many_as_fit(size, passed)
