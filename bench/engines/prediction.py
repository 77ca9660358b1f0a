"""A candidate's answer that counts: in float32, and the mean of a randomized candidate."""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from bench.attacks.expectation import expectation
from bench.decision import NO_CLASS, answered, classes_of
from bench.engines.engine import Task
from bench.precision import tensor_cores
from bench.store.records import CleanResults

DECIDING_DRAWS = 32
"""Fresh draws whose mean is a randomized candidate's answer."""

FIRST_CONFIRMATION_DRAWS = 128
MOST_CONFIRMATION_DRAWS = 1024
"""Further draws on which a randomized candidate's witness must succeed too: at least, at most."""

BEYOND_DOUBT = 4.0
"""Standard errors by which a wrong class must lead on them. A search tries many images and stops at
the first that counts: without a margin, a lucky draw would pass for a witness."""


class Purpose(enum.IntEnum):
    """What a randomized candidate's draws are for; no two purposes share draws."""

    SEARCH = 0
    DECISION = 1
    CONFIRMATION = 2
    VERIFICATION = 3


def decide(task: Task, images: Tensor) -> Tensor:
    """Return the classes (n,) that count for images (n, C, H, W), on the device of the task.

    The candidate's own module, in float32, on these very images; for a randomized one the class of
    the highest mean probability over `DECIDING_DRAWS` draws that no attack has seen. `NO_CLASS`
    where that is no answer.
    """
    model = expectation(task.module, DECIDING_DRAWS) if task.randomized else task.module
    with torch.no_grad(), tensor_cores(False), own_randomness(task, Purpose.DECISION, len(images)):
        return classes_of(model(images.to(task.device, copy=True)))


def confirm(task: Task, images: Tensor, labels: Tensor) -> Tensor:
    """Return the classes (n,) that images (n, C, H, W) are proven to get, on the task's device.

    As `decide`; but where a randomized candidate is wrong, that class, or having none, must lead
    the label beyond doubt on further draws, or the image is given its label (n,).
    """
    classes = decide(task, images)
    if not task.randomized:
        return classes
    labels = labels.to(classes.device)
    doubtful = (classes != labels).nonzero().flatten()
    if len(doubtful):
        chosen = images[doubtful.to(images.device)].to(task.device, copy=True)
        with (
            torch.no_grad(),
            tensor_cores(False),
            own_randomness(task, Purpose.CONFIRMATION, len(images)),
        ):
            lead, _ = leads(task.module, chosen, classes[doubtful], labels[doubtful], least=0.0)
        proven = lead >= BEYOND_DOUBT
        classes[doubtful] = torch.where(proven, classes[doubtful], labels[doubtful])
    return classes


def leads(
    module: nn.Module, images: Tensor, classes: Tensor, labels: Tensor, least: float
) -> tuple[Tensor, Tensor]:
    """Return by how much a randomized candidate prefers some classes to the labels.

    It draws until the lead is beyond doubt, or too small to wait for.

    Args:
        module: images (n, C, H, W) -> logits (n, K), other ones in each call.
        images: (n, C, H, W).
        classes: (n,) int64; `NO_CLASS` stands for the draws without an answer.
        labels: (n,) int64.
        least: a lead below it is too small.

    Returns:
        The mean difference (n,) of the two probabilities in units of its standard error, and the
        number of draws (n,) that it took.
    """
    lead = torch.zeros(len(images), device=images.device)
    draws = torch.zeros(len(images), dtype=torch.int64, device=images.device)
    total, squares = lead.double(), lead.double()
    waiting = torch.arange(len(images), device=images.device)
    drawn = 0
    while len(waiting) and drawn < MOST_CONFIRMATION_DRAWS:
        for _ in range(max(drawn, FIRST_CONFIRMATION_DRAWS)):
            # Indexing copies: a candidate may change its input in place.
            shares = _shares(module(images[waiting]))
            places = classes[waiting].where(classes[waiting] != NO_CLASS, shares.shape[1] - 1)
            both = shares.gather(1, torch.stack((places, labels[waiting]), dim=1))
            difference = both[:, 0] - both[:, 1]
            total[waiting] += difference
            squares[waiting] += difference.square()
            drawn += 1
        mean = total[waiting] / drawn
        variance = (squares[waiting] / drawn - mean.square()).clamp_min(0) / (drawn - 1)
        lead[waiting] = (mean / variance.sqrt().clamp_min(1e-12)).float()
        draws[waiting] = drawn
        waiting = waiting[(lead[waiting] >= least) & (lead[waiting] < BEYOND_DOUBT)]
    return lead, draws


def _shares(logits: Tensor) -> Tensor:
    """Return probabilities (n, K + 1) float64 from logits (n, K); the last: no answer."""
    finite = answered(logits).unsqueeze(1)
    shares = torch.softmax(logits.double(), dim=1).where(finite, 0.0)
    return torch.cat((shares, (~finite).double()), dim=1)


def clean_results(task: Task, rows: Tensor) -> CleanResults:
    """Return the predictions without attack on the samples in `rows` (n,)."""
    return CleanResults(
        index=task.indices[rows].numpy(),
        label=task.labels[rows].numpy(),
        prediction=decide(task, task.images[rows]).cpu().numpy(),
    )


def deciding_passes(task: Task) -> int:
    """Return the forward passes that `confirm` takes of an image."""
    return DECIDING_DRAWS if task.randomized else 1


@contextlib.contextmanager
def own_randomness(task: Task, purpose: Purpose, *keys: int) -> Iterator[None]:
    """Let a randomized candidate draw from a stream of its own for these keys.

    Other candidates are left alone. A candidate draws for a whole batch at once, so that for
    randomized ones, and for them alone, a sample's result may depend on its batch.
    """
    if not task.randomized:
        yield
        return
    with keyed_randomness(task.device, task.seed, purpose, *keys):
        yield


@contextlib.contextmanager
def keyed_randomness(
    device: torch.device, seed: int, purpose: Purpose, *keys: int
) -> Iterator[None]:
    """Seed torch's own generators by the arguments within this context; restore them after it."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        for key in (purpose, *keys):
            seed = (seed * 1_000_003 + key + 1) % (1 << 63)
        torch.manual_seed(seed)
        yield
