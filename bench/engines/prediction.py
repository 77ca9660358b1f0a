"""What counts as a candidate's answer: in float32, and for a randomized one on average."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from bench.attacks.expectation import expectation
from bench.engines.acceleration import tensor_cores
from bench.engines.engine import Task
from bench.records import CleanResults

DECIDING_DRAWS = 32
"""Fresh draws whose mean is a randomized candidate's answer."""

CONFIRMATION_DRAWS = 128
"""Further draws that a randomized candidate's witness must fool as well."""

BEYOND_DOUBT = 4.0
"""Standard errors by which a wrong class must lead on them. A search shows many images and stops at
the first that counts: without a margin, luck with the draws would pass for a witness."""


def predict(module: nn.Module, images: Tensor, device: torch.device) -> Tensor:
    """Predicted classes (n,) of images (n, C, H, W), on the CPU."""
    with torch.no_grad():
        logits: Tensor = module(images.to(device))
    return logits.max(dim=1)[1].cpu()


def decide(task: Task, images: Tensor) -> Tensor:
    """The classes (n,) that count for images (n, C, H, W), on the device of the task.

    The candidate's own module, in float32, on these very images; for a randomized one the class of
    the highest mean probability over `DECIDING_DRAWS` draws that no attack has seen.
    """
    model = expectation(task.module, DECIDING_DRAWS) if task.randomized else task.module
    with torch.no_grad(), tensor_cores(False), own_randomness(task, len(images)):
        classes: Tensor = model(images.to(task.device, copy=True)).max(dim=1)[1]
    return classes


def confirm(task: Task, images: Tensor, labels: Tensor) -> Tensor:
    """The classes (n,) that images (n, C, H, W) are proven to get, on the device of the task.

    As `decide`; but where a randomized candidate is wrong, a wrong class must lead the label beyond
    doubt on further draws, or the image is given its label (n,).
    """
    classes = decide(task, images)
    if not task.randomized:
        return classes
    labels = labels.to(classes.device)
    doubtful = (classes != labels).nonzero().flatten()
    if len(doubtful):
        chosen = images[doubtful.to(images.device)].to(task.device, copy=True)
        with torch.no_grad(), tensor_cores(False), own_randomness(task, len(images), 1):
            found, lead = leads(task.module, chosen, labels[doubtful], CONFIRMATION_DRAWS)
        classes[doubtful] = torch.where(lead > BEYOND_DOUBT, found, labels[doubtful])
    return classes


def leads(module: nn.Module, images: Tensor, labels: Tensor, draws: int) -> tuple[Tensor, Tensor]:
    """By how much a randomized candidate prefers another class to the label.

    Args:
        module: images (n, C, H, W) -> logits (n, K), other ones in each call.
        images: (n, C, H, W).
        labels: (n,) int64.
        draws: calls, at least 2.

    Returns:
        The class (n,) of the highest mean probability but for the label, and its mean lead (n,)
        over the label in units of the mean's standard error; negative where the label leads.
    """
    shares = torch.stack([torch.softmax(module(images).float(), dim=1) for _ in range(draws)])
    others = shares.mean(dim=0).scatter(1, labels.unsqueeze(1), float("-inf"))
    found = others.max(dim=1)[1]
    of_found, of_label = (
        shares.gather(2, classes.view(1, -1, 1).expand(draws, -1, 1)).squeeze(2)
        for classes in (found, labels)
    )
    lead = of_found - of_label
    error = lead.std(dim=0) / math.sqrt(draws)
    return found, lead.mean(dim=0) / error.clamp_min(torch.finfo(error.dtype).tiny)


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
