"""Flags on a candidate's answers: what they are, and whether they stay the same."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench.decision import answered
from bench.errors import InputError
from bench.modules import is_training
from bench.store.summary import Flag

PROBABILITY_TOLERANCE = 1e-5
RANDOMNESS_THRESHOLD = 1e-4
BATCH_THRESHOLD = 1e-3
"""Largest change of logits, relative to their length, that rounding may cause in another batch."""


def check_logits(name: str, logits: object, shape: tuple[int, int]) -> None:
    """Check the form of a candidate's answer.

    Args:
        name: of the candidate, for the message.
        logits: whatever it returned.
        shape: (n, K) that is expected.

    Raises:
        InputError: it is no floating-point tensor of that shape.
    """
    expected = f"candidate {name}: expected logits of shape {shape}"
    if not isinstance(logits, Tensor):
        raise InputError(f"{expected}, got {type(logits).__name__}")
    if tuple(logits.shape) != shape:
        raise InputError(f"{expected}, got {tuple(logits.shape)}")
    if not logits.is_floating_point():
        raise InputError(f"{expected} of floating point, got {logits.dtype}")


def check_some_answered(name: str, logits: Tensor) -> Tensor:
    """Return for which images (n,) the logits (n, K) are finite; records count the others.

    Raises:
        InputError: there are none: the weights or the network are broken.
    """
    finite = answered(logits)
    if not bool(finite.any()):
        n = len(logits)
        raise InputError(
            f"candidate {name}: expected logits that are finite, got NaN or infinity on {n} of {n} "
            "images; check the weights. To exclude a class, give it a finite logit such as -1e4 "
            "instead of -inf"
        )
    return finite


def probabilities(logits: Tensor) -> Flag | None:
    """Flag outputs (n, K) that look like probabilities, on which gradients vanish."""
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
    """Flag two answers (n, K) to the same images that differ, relative to their length."""
    difference = _relative_difference(first, second)
    if difference <= RANDOMNESS_THRESHOLD:
        return None
    return Flag(
        name="randomized",
        measured=difference,
        threshold=RANDOMNESS_THRESHOLD,
        meaning="Two calls on the same images give different logits. Attacks that expect one "
        "answer overestimate the robustness, and a single success may be luck.",
        advice="Declare it, by `randomized: true` in a submission.yaml or randomized=True in "
        "Python, and run --protocol adaptive, which attacks the expectation over the randomness.",
    )


def batch_dependence(module: nn.Module, images: Tensor, logits: Tensor) -> Flag | None:
    """Flag answers to images (n, C, H, W) that depend on the others in the batch."""
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
    """Flag a module that wrote into the tensor (n, C, H, W) that it was given."""
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
    """Flag parts of a module in training mode although it was put into eval mode."""
    names = [name or "the module" for name, part in module.named_modules() if is_training(part)]
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
    """Flag logits (n, K) in half precision, where near margins round to zero."""
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


def _relative_difference(first: Tensor, second: Tensor) -> float:
    """Return the largest distance of two answers (n, K), relative to the first one's length.

    The distance is 1 where one of the two is finite and the other is not.
    """
    both = answered(first)
    if not torch.equal(both, answered(second)):
        return 1.0
    # In float32 the squares of large logits overflow.
    first, second = first[both].double(), second[both].double()
    distance = (first - second).norm(dim=1) / first.norm(dim=1).clamp_min(1e-10)
    return float(distance.amax()) if len(distance) else 0.0
