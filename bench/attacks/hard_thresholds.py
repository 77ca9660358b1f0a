"""Hard thresholds: operations that snap what is near a value to it, and leave the rest alone.

A feature closer to its mean than a threshold becomes the mean (MeanSparse, Amini et al. 2024, arXiv
2406.05927), one below a threshold becomes 0 (hard shrinkage). What is snapped has no gradient
although a small change can bring it back whole, with a jump. A ReLU or a clamp also replaces some
values by a constant, but has no jump: right beside the boundary kept values are as near to the
constant as may be. That is how the two are told apart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Replacement:
    """Values, and what some of them are replaced by.

    Attributes:
        values: (N, ...), with a gradient.
        constant: what replaces them, without one; broadcasts to `values`.
        replaced: bool, which ones; broadcasts to `values`.
    """

    values: Tensor
    constant: Tensor | float
    replaced: Tensor


def snapped_values(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor | None:
    """Return the values that a PyTorch operation snaps; None if it does no such thing.

    Args:
        name: of the operation.
        args: its arguments.
        kwargs: its arguments by name.
    """
    find = _OPERATIONS.get(name)
    if find is None or kwargs:
        return None
    with torch.no_grad():
        replacement = find(*args) if len(args) <= 3 else None
        return replacement.values if replacement is not None and _jumps(replacement) else None


def _jumps(replacement: Replacement) -> bool:
    """Return whether, in every channel, replaced values are nearer to the constant than kept."""
    distance = (replacement.values.detach() - replacement.constant).abs()
    if distance.shape != replacement.values.shape:
        return False
    replaced = replacement.replaced.expand_as(distance)
    dims = [dim for dim in range(distance.dim()) if dim != 1]
    replaced_most = distance.masked_fill(~replaced, -1).amax(dims)
    kept_least = distance.masked_fill(replaced, float("inf")).amin(dims)
    both = (replaced_most >= 0) & kept_least.isfinite()
    gap = (replaced_most <= kept_least) & (kept_least > 0)
    return bool(both.any()) and bool(gap[both].all())


def _where(first: Any, second: Any = None, third: Any = None) -> Replacement | None:
    """Read `torch.where(condition, a, b)` or `a.where(condition, b)`."""
    if second is None:
        return None
    if isinstance(second, Tensor) and second.dtype == torch.bool:
        first, second = second, first
    if not isinstance(first, Tensor) or first.dtype != torch.bool:
        return None
    if _moves(third) and not _moves(second):
        return Replacement(third, second, first)
    if _moves(second) and not _moves(third):
        return Replacement(second, third, ~first)
    return None


def _masked_fill(values: Any, mask: Any, constant: Any) -> Replacement | None:
    return Replacement(values, constant, mask) if _moves(values) and not _moves(constant) else None


def _multiplication(first: Any, second: Any) -> Replacement | None:
    """Read a multiplication of values by a mask of zeros and ones."""
    for values, mask in ((first, second), (second, first)):
        if not (_moves(values) and isinstance(mask, Tensor) and not mask.requires_grad):
            continue
        if mask.shape == values.shape and bool(((mask == 0) | (mask == 1)).all()):
            return Replacement(values, 0.0, mask == 0)
    return None


def _hardshrink(values: Any, threshold: float = 0.5) -> Replacement | None:
    return Replacement(values, 0.0, values.abs() <= threshold) if _moves(values) else None


def _moves(value: Any) -> bool:
    return isinstance(value, Tensor) and value.requires_grad and value.dim() >= 2


_OPERATIONS: Mapping[str, Callable[..., Replacement | None]] = {
    "where": _where,
    "masked_fill": _masked_fill,
    "mul": _multiplication,
    "multiply": _multiplication,
    "__mul__": _multiplication,
    "__rmul__": _multiplication,
    "hardshrink": _hardshrink,
}
