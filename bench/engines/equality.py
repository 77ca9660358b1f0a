"""Whether a changed module still has the candidate's logits and gradients."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from bench.errors import briefly

LOGIT_TOLERANCE = 1e-4
"""Largest change of a logit, relative to the largest one, by which answers count as equal."""
GRADIENT_TOLERANCE = 1e-2
"""The same for an image's gradient, by its length: where a ReLU or a maximum is near its kink,
rounding decides about single entries."""
_FEW = 4


class Expected:
    """A candidate's answers to a few images, with which changed modules are compared.

    Attributes:
        repeats: whether a second call with the same random numbers gives the same answers.
    """

    def __init__(self, module: nn.Module, images: Tensor) -> None:
        """Ask the candidate.

        Args:
            module: images (n, C, H, W) in [0, 1] -> logits (n, K).
            images: (n, C, H, W), at least one.

        Raises:
            Exception: whatever the candidate raises.
        """
        # The second batch holds negatives, and is of another size: a copy that shares with its
        # original what a pass leaves behind would answer for the last images, whatever it is given.
        self._batches = (images, 1 - images[:_FEW])
        self._gradient = _gradient_if_any(module, self._batches[1])
        # The last passes are without gradients, so that layers that keep a weight of their pass
        # can be copied.
        self._logits = [_logits(module, each) for each in self._batches]
        again = _logits(module, self._batches[0])
        self.repeats = _largest_change(again, self._logits[0]) <= LOGIT_TOLERANCE

    def compare(self, module: nn.Module) -> tuple[float, str]:
        """Return the largest relative change of a logit, and what is wrong, or an empty text.

        A candidate that does not repeat its answers cannot be compared: it only has to run.
        """
        try:
            with _silent():
                gradient = None if self._gradient is None else _gradient(module, self._batches[1])
                logits = [_logits(module, each) for each in self._batches]
        except Exception as error:  # foreign code may raise anything where it cannot take a change
            return float("inf"), briefly(error)
        change = max(map(_largest_change, logits, self._logits))
        if not self.repeats:
            return change, ""
        if not change <= LOGIT_TOLERANCE:
            return change, f"logits would change by {change:.1e}"
        if self._gradient is not None:
            turned = _turned(gradient, self._gradient)
            if not turned <= GRADIENT_TOLERANCE:
                return change, f"gradients would change by {turned:.1e}"
        return change, ""


def _logits(module: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad(), _same_draws(images.device):
        logits: Tensor = module(images.clone())
    return logits.float().clone()  # a module may write its next answer into the same memory


def _gradient(module: nn.Module, images: Tensor) -> Tensor | None:
    """Return the gradient of a sum of all logits in different shares; None if there is none."""
    inputs = images.clone().requires_grad_()
    with torch.enable_grad(), _same_draws(images.device):
        logits = module(inputs.clone()).float()
        if not logits.requires_grad:
            return None
        shares = torch.linspace(-1, 1, logits.shape[-1], device=logits.device)
        (gradient,) = torch.autograd.grad((logits * shares).sum(), inputs, allow_unused=True)
    return gradient


def _gradient_if_any(module: nn.Module, images: Tensor) -> Tensor | None:
    """Return `_gradient`; None also where it fails, which whoever needs it reports."""
    try:
        with _silent():
            gradient = _gradient(module, images)
    except Exception:  # foreign code may raise anything
        return None
    usable = gradient is not None and bool(gradient.isfinite().all()) and bool(gradient.any())
    return gradient if usable else None


@contextlib.contextmanager
def _same_draws(device: torch.device) -> Iterator[None]:
    """Seed PyTorch's own generators within this context; restore them after it."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        yield


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Show no warning in this context, and no traceback of torch.fx."""
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def _largest_change(ours: Tensor, theirs: Tensor) -> float:
    """Return the largest change, relative to the largest finite value.

    It is infinite where only one of the two is a number.
    """
    if ours.shape != theirs.shape:
        return float("inf")
    same = (ours == theirs) | (ours.isnan() & theirs.isnan())
    change = torch.where(same, 0.0, (ours - theirs).abs()).max()
    finite = torch.where(theirs.isfinite(), theirs.abs(), 0.0)
    relative = float(change / finite.max().clamp_min(1e-12))
    return relative if relative == relative else float("inf")


def _turned(ours: Tensor | None, theirs: Tensor) -> float:
    """Return the largest distance of an image's two gradients, relative to the longest one."""
    if ours is None:
        return float("inf")
    distance = (ours - theirs).flatten(1).norm(dim=1).max()
    return float(distance / theirs.flatten(1).norm(dim=1).max().clamp_min(1e-30))
