"""Flags on a candidate's gradients: missing, vanishing, stopped, or used by the candidate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from bench.attacks.distances import norms
from bench.attacks.image_gradient import GradientError, image_gradient, means_no_gradient
from bench.attacks.losses import cross_entropy, margin
from bench.attacks.straight_through import flat_operations
from bench.errors import raised
from bench.store.summary import Flag

ZERO_GRADIENT_THRESHOLD = 0.01
VANISHING_RATIO = 1e-12
"""Ratio of the gradient of the cross-entropy to that of the logits' margin, which is about the
probability of all wrong classes together. Where it is so small, the cross-entropy itself is
rounded to 0, so that it no longer tells an attack which of two images is better."""
VANISHING_THRESHOLD = 0.5


def failing_gradients(error: GradientError) -> Flag:
    """Return the flag on passes whose gradient cannot be computed because of an error."""
    return Flag(
        name="gradient-error",
        measured=raised(error.__cause__ or error),
        threshold="none",
        meaning="The gradient with respect to the image cannot be computed, though the candidate "
        "does not say that it has none: attacks that need it may fail.",
        advice="Make the candidate's passes differentiable on this device; without gradients only "
        "square and certificates can be had.",
    )


def zero_gradients(module: nn.Module, images: Tensor, labels: Tensor) -> Flag | None:
    """Flag images on which the cross-entropy has no gradient, or there is no graph."""
    gradient = image_gradient(module, images, labels)
    share = 1.0
    if gradient is not None:
        share = float((gradient.flatten(1).abs().sum(dim=1) == 0).float().mean())
    if share <= ZERO_GRADIENT_THRESHOLD:
        return None
    return Flag(
        name="zero-gradients",
        measured=share,
        threshold=ZERO_GRADIENT_THRESHOLD,
        meaning="On this share of images the gradient of the cross-entropy is exactly zero, so "
        "that gradient attacks cannot move: masked gradients, not robustness.",
        advice="Attack a differentiable surrogate (BPDA), or rescale the logits.",
    )


def non_finite_gradients(module: nn.Module, images: Tensor, labels: Tensor) -> Flag | None:
    """Flag images on which a gradient of cross-entropy or margin holds NaN or infinity.

    The package's attacks take such entries for 0; in other programs they may stop an attack.
    """
    gradients = [image_gradient(module, images, labels, loss) for loss in (cross_entropy, margin)]
    bad = [~torch.isfinite(each.flatten(1)).all(dim=1) for each in gradients if each is not None]
    share = float(torch.stack(bad).any(dim=0).float().mean()) if bad else 0.0
    if share == 0:
        return None
    return Flag(
        name="non-finite-gradients",
        measured=share,
        threshold=0.0,
        meaning="On this share of images the gradient holds NaN or infinity, so that gradient "
        "attacks lack their direction there, though the logits are finite.",
        advice="Find the operation (torch.autograd.detect_anomaly), such as the root of zero, and "
        "give it a finite gradient.",
    )


def vanishing_gradients(module: nn.Module, images: Tensor, labels: Tensor) -> Flag | None:
    """Flag images on which the cross-entropy's gradient vanishes while the logits have one."""
    gradient = image_gradient(module, images, labels)
    of_logits = image_gradient(module, images, labels, margin)
    if gradient is None or of_logits is None:
        return None  # no gradient at all: the flag for zero gradients says so
    # In float32 the squares of numbers below 1e-19 are zero.
    size, expected = (norms(each.double(), "L2") for each in (gradient, of_logits))
    vanishes = (expected > 0) & (size <= VANISHING_RATIO * expected)
    share = float(vanishes.float().mean())
    if share <= VANISHING_THRESHOLD:
        return None
    return Flag(
        name="vanishing-gradients",
        measured=share,
        threshold=VANISHING_THRESHOLD,
        meaning="On this share of images the logits lie so far apart that the gradient of the "
        "cross-entropy is next to nothing beside theirs: attacks on it go nowhere.",
        advice="Divide the logits by a constant, which changes no prediction, or believe only "
        "attacks whose loss is scale-free (apgd-t, fab-t).",
    )


def stopped_gradients(module: nn.Module, images: Tensor) -> Flag | None:
    """Flag roundings, signs, hard thresholds and cuts in the graph that stop gradients."""
    try:
        found = flat_operations(module, images)
    except Exception as error:  # foreign code may raise anything
        if not means_no_gradient(error):
            raise
        return None  # what it writes in place cannot be differentiated in any way
    if not found:
        return None
    return Flag(
        name="stopped-gradients",
        measured=", ".join(sorted(found)),
        threshold="none",
        meaning="Operations between image and logits let no gradient pass, so that gradient "
        "attacks see only a part of what the candidate does.",
        advice="Run --protocol adaptive: its apgd-straight-through replaces these operations in "
        "the backward pass (BPDA), by the candidate's surrogate if it declares one.",
    )


class _CountedGradients(TorchFunctionMode):
    """Count the gradients that are computed within this context."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func in (torch.autograd.grad, torch.autograd.backward, Tensor.backward):
            self.count += 1
        return func(*args, **(kwargs or {}))


def inner_gradients(module: nn.Module, images: Tensor) -> Flag | None:
    """Flag a forward pass that computes gradients: test-time optimization."""
    with torch.no_grad(), _CountedGradients() as counted:
        module(images.clone())
    if not counted.count:
        return None
    return Flag(
        name="gradients-in-forward",
        measured=float(counted.count),
        threshold=0.0,
        meaning="The forward pass computes so many gradients of its own, an optimization at test "
        "time: standard attacks do not differentiate through it, or not well.",
        advice="Attack the network without its optimization and try the images on the whole "
        "(declare the bare network as surrogate, run --protocol adaptive), and see whether the "
        "optimization adds anything to its robustness.",
    )
