"""What counts as a candidate's answer: in float32, and for a randomized one on average."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from bench.attacks import Model
from bench.attacks.expectation import expectation
from bench.engines.acceleration import tensor_cores
from bench.engines.engine import Task
from bench.records import CleanResults

CONFIRMATION_DRAWS = 32
"""Fresh draws whose mean decides about a randomized candidate's answer."""


def predict(module: nn.Module, images: Tensor, device: torch.device) -> Tensor:
    """Predicted classes (n,) of images (n, C, H, W), on the CPU."""
    with torch.no_grad():
        logits: Tensor = module(images.to(device))
    return logits.max(dim=1)[1].cpu()


def deciding(module: nn.Module, randomized: bool) -> Model:
    """What decides about images: the module, or the mean of many draws if it is randomized."""
    return expectation(module, CONFIRMATION_DRAWS) if randomized else module


def decide(task: Task, images: Tensor) -> Tensor:
    """The classes (n,) that count for images (n, C, H, W), on the device of the task.

    The candidate's own module, in float32, on these very images; for a randomized one the class of
    the highest mean probability over `CONFIRMATION_DRAWS` draws that no attack has seen.
    """
    model = deciding(task.module, task.randomized)
    with torch.no_grad(), tensor_cores(False), own_randomness(task, len(images)):
        classes: Tensor = model(images.to(task.device, copy=True)).max(dim=1)[1]
    return classes


def clean_results(task: Task, rows: Tensor) -> CleanResults:
    """Predictions without attack on the samples in `rows` (n,)."""
    return CleanResults(
        index=task.indices[rows].numpy(),
        label=task.labels[rows].numpy(),
        prediction=decide(task, task.images[rows]).cpu().numpy(),
    )


@contextlib.contextmanager
def own_randomness(task: Task, *keys: int) -> Iterator[None]:
    """Within this context a randomized candidate draws from a stream keyed by seed and `keys`.

    Other candidates are left alone. A candidate draws for a whole batch at once, so that for
    randomized ones, and for them alone, a sample's result may depend on its batch.
    """
    if not task.randomized:
        yield
        return
    with keyed_randomness(task.device, task.seed, *keys):
        yield


@contextlib.contextmanager
def keyed_randomness(device: torch.device, seed: int, *keys: int) -> Iterator[None]:
    """Within this context torch's own generators are keyed by seed and `keys`; then as before."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        for key in keys:
            seed = (seed * 1_000_003 + key + 1) % (1 << 63)
        torch.manual_seed(seed)
        yield
