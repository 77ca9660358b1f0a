"""Reliability flags: what makes an attack's number doubtful, measured.

The first three are measured on a batch before any attack, the last one on the finished records.
Sources: the checks of AutoAttack (Croce and Hein 2020, arXiv 2003.01690, and its `flags_doc`) and
Carlini et al. 2019 (arXiv 1902.06705).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bench.errors import InputError
from bench.records import AttackSummary, Flag

PROBABILITY_TOLERANCE = 1e-5
RANDOMNESS_THRESHOLD = 1e-4
ZERO_GRADIENT_THRESHOLD = 0.01
SQUARE_THRESHOLD = 0.002


def inspect(
    name: str, module: nn.Module, images: Tensor, labels: Tensor, classes: int, randomized: bool
) -> list[Flag]:
    """Check a candidate's answers on a batch before anything is attacked.

    Args:
        name: of the candidate, for messages.
        module: on the device of `images`.
        images: (n, C, H, W) in [0, 1].
        labels: (n,).
        classes: K.
        randomized: whether the candidate declares that two calls may differ.

    Returns:
        the flags that it raises.

    Raises:
        InputError: logits that are no (n, K) floating-point tensor, or hold NaN or infinity.
    """
    with torch.no_grad():
        first, second = module(images.clone()), module(images.clone())
    _check_logits(name, first, (len(images), classes))
    flags = [probabilities(first), zero_gradients(module, images, labels)]
    if not randomized:
        flags.append(randomness(first, second))
    return [flag for flag in flags if flag is not None]


def _check_logits(name: str, logits: object, shape: tuple[int, int]) -> None:
    expected = f"candidate {name}: expected logits of shape {shape}"
    if not isinstance(logits, Tensor):
        raise InputError(f"{expected}, got {type(logits).__name__}")
    if tuple(logits.shape) != shape:
        raise InputError(f"{expected}, got {tuple(logits.shape)}")
    if not logits.is_floating_point():
        raise InputError(f"{expected} of floating point, got {logits.dtype}")
    bad = int((~torch.isfinite(logits)).any(dim=1).sum())
    if bad:
        raise InputError(
            f"{expected} that are finite, got NaN or infinity on {bad} of {shape[0]} images"
        )


def probabilities(logits: Tensor) -> Flag | None:
    """Whether (n, K) outputs look like probabilities, on which gradients vanish."""
    tolerance = PROBABILITY_TOLERANCE
    off = float((logits.sum(dim=1) - 1).abs().max())
    if float(logits.min()) < -tolerance or float(logits.max()) > 1 + tolerance or off > tolerance:
        return None
    return Flag(
        name="probabilities",
        measured=off,
        threshold=tolerance,
        meaning="The outputs are in [0, 1] and sum to 1: probabilities, not logits. The gradient "
        "of the cross-entropy vanishes where they saturate.",
        advice="Return logits, or the logarithm of the probabilities.",
    )


def randomness(first: Tensor, second: Tensor) -> Flag | None:
    """Whether two answers (n, K) to the same images differ, relative to their length."""
    length = first.norm(dim=1).clamp_min(1e-10)
    difference = float(((first - second).norm(dim=1) / length).max())
    if difference <= RANDOMNESS_THRESHOLD:
        return None
    return Flag(
        name="randomized",
        measured=difference,
        threshold=RANDOMNESS_THRESHOLD,
        meaning="Two calls on the same images give different logits. Attacks that expect one "
        "answer overestimate the robustness, and a single success may be luck.",
        advice="Declare `randomized: true`, and attack the expectation over the randomness.",
    )


def zero_gradients(module: nn.Module, images: Tensor, labels: Tensor) -> Flag | None:
    """Share of images on which the cross-entropy has no gradient at all, or there is no graph."""
    inputs = images.clone().requires_grad_()
    with torch.enable_grad():
        loss = nn.functional.cross_entropy(module(inputs).float(), labels, reduction="sum")
    share = 1.0
    if loss.requires_grad:
        (gradient,) = torch.autograd.grad(loss, inputs, allow_unused=True)
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


def square_beats_gradients(attacks: Sequence[AttackSummary]) -> Flag | None:
    """Whether Square, which sees no gradient, broke samples that the gradient attacks left."""
    for before, after in itertools.pairwise(attacks):
        drop = before.accuracy_after - after.accuracy_after
        if after.name == "square" and drop > SQUARE_THRESHOLD:
            return Flag(
                name="square-beats-gradients",
                measured=drop,
                threshold=SQUARE_THRESHOLD,
                meaning="Square, a query attack without gradients, lowered the accuracy further "
                "after the gradient attacks: their gradients are probably masked.",
                advice="Run Square with more queries and restarts, or an adaptive attack.",
            )
    return None
