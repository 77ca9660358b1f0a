"""Reliability flags: what makes an attack's number doubtful, measured.

All but the last are measured on a batch before any attack, the last one on the finished records.
Sources: the checks of AutoAttack (Croce and Hein 2020, arXiv 2003.01690, and its `flags_doc`) and
Carlini et al. 2019 (arXiv 1902.06705).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from scipy.stats import binom
from torch import Tensor, nn

from bench.errors import InputError
from bench.records import AttackSummary, Flag

PROBABILITY_TOLERANCE = 1e-5
RANDOMNESS_THRESHOLD = 1e-4
ZERO_GRADIENT_THRESHOLD = 0.01
BATCH_THRESHOLD = 1e-3
"""Largest change of logits, relative to their length, that rounding may cause in another batch."""
SQUARE_THRESHOLD = 0.002
SQUARE_CHANCE = 0.01
"""How probable an honest model's excess may be before it counts as more than chance."""


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
    given = images.clone()
    with torch.no_grad():
        first, second = module(given), module(images.clone())
    _check_logits(name, first, (len(images), classes))
    flags = [
        probabilities(first),
        zero_gradients(module, images, labels),
        changed_input(images, given),
        training_mode(module),
        low_precision(first),
    ]
    if not randomized:
        repeats = randomness(first, second)
        # An answer that changes by itself also changes with its batch.
        flags.append(repeats or batch_dependence(module, images, first))
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
    difference = _relative_difference(first, second)
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


def batch_dependence(module: nn.Module, images: Tensor, logits: Tensor) -> Flag | None:
    """Whether the answer to an image (n, C, H, W) depends on the others in its batch."""
    half = max(len(images) // 2, 1)
    with torch.no_grad():
        alone = module(images[:half].flip(0).clone()).flip(0)
    difference = _relative_difference(logits[:half], alone)
    if difference <= BATCH_THRESHOLD:
        return None
    return Flag(
        name="batch-dependent",
        measured=difference,
        threshold=BATCH_THRESHOLD,
        meaning="The logits of an image change with the other images in its batch, so accuracies "
        "belong to one batch size and order, and an adversarial image may break only in company.",
        advice="Make each answer depend on its own image alone, e.g. batch norms in eval mode; "
        "until then read the result with --batch-size 1.",
    )


def changed_input(images: Tensor, given: Tensor) -> Flag | None:
    """Whether the module wrote into the tensor (n, C, H, W) that it was given."""
    difference = float((images - given).abs().max())
    if difference == 0:
        return None
    return Flag(
        name="changes-input",
        measured=difference,
        threshold=0.0,
        meaning="The forward pass changes its input in place. The fast engine passes copies, the "
        "reference does not: its attacks would go on from images that they never chose.",
        advice="Replace the in-place operation on the input by one that makes a new tensor.",
    )


def training_mode(module: nn.Module) -> Flag | None:
    """Whether a part of the module is in training mode although it was put into eval mode."""
    names = [name or "the module" for name, part in module.named_modules() if part.training]
    if not names:
        return None
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return Flag(
        name="training-mode",
        measured=", ".join(names[:3]) + more,
        threshold="none",
        meaning="Parts of the candidate are in training mode: dropout stays on, batch norms use "
        "the batch's statistics, and running them changes the weights' buffers.",
        advice="Put every part into eval mode when the candidate is built.",
    )


def low_precision(logits: Tensor) -> Flag | None:
    """Whether logits (n, K) come in half precision, where near margins round to zero."""
    if logits.dtype not in (torch.float16, torch.bfloat16):
        return None
    return Flag(
        name="low-precision-logits",
        measured=str(logits.dtype).removeprefix("torch."),
        threshold="float32",
        meaning="The logits are rounded to half precision: differences that attacks follow vanish, "
        "and ties decide predictions.",
        advice="Return float32 logits; the passes before them may stay in half precision.",
    )


def image_gradient(
    model: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor
) -> Tensor | None:
    """Gradient (n, C, H, W) of the cross-entropy, or None where there is none to be had.

    Args:
        model: images to logits (n, K).
        images: (n, C, H, W).
        labels: (n,).
    """
    inputs = images.clone().requires_grad_()
    with torch.enable_grad():
        loss = nn.functional.cross_entropy(model(inputs.clone()).float(), labels, reduction="sum")
        if not loss.requires_grad:
            return None
        try:
            (gradient,) = torch.autograd.grad(loss, inputs, allow_unused=True)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:  # e.g. what the backward pass needs was overwritten in place
            return None
    return gradient


def square_beats_gradients(attacks: Sequence[AttackSummary], n: int) -> Flag | None:
    """Whether Square, which sees no gradient, broke samples that the gradient attacks left.

    AutoAttack warns above 0.2% of the samples. On few samples an honest model passes that by a
    single lucky query, so the excess over 0.2% must also be more than chance (exact binomial test).

    Args:
        attacks: in their order.
        n: samples of the run.
    """
    for before, after in itertools.pairwise(attacks):
        broken = round((before.accuracy_after - after.accuracy_after) * n)
        if after.name == "square" and binom.sf(broken - 1, n, SQUARE_THRESHOLD) < SQUARE_CHANCE:
            return Flag(
                name="square-beats-gradients",
                measured=broken / n,
                threshold=SQUARE_THRESHOLD,
                meaning="Square, a query attack without gradients, lowered the accuracy further "
                "after the gradient attacks: their gradients are probably masked.",
                advice="Run Square with more queries and restarts, or an adaptive attack.",
            )
    return None


def _relative_difference(first: Tensor, second: Tensor) -> float:
    """Largest distance of two answers (n, K) to an image, relative to the first one's length."""
    first, second = first.float(), second.float()
    return float(((first - second).norm(dim=1) / first.norm(dim=1).clamp_min(1e-10)).max())
