"""Losses that attacks ascend: (logits, labels, targets) -> one value a sample.

A targeted loss reads the class to reach from `targets`; the others ignore it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from torch import Tensor
from torch.nn import functional

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From logits (N, K), labels (N,) and target classes (N,) to losses (N,)."""

_SMALLEST_DENOMINATOR = 1e-12


def cross_entropy(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """Return the cross-entropy of the label."""
    return functional.cross_entropy(logits, labels, reduction="none")


def cross_entropy_targeted(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """Return minus the cross-entropy of the target."""
    return -functional.cross_entropy(logits, targets, reduction="none")


def dlr(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """Return the difference of logits ratio (Croce and Hein 2020, arXiv 2003.01690).

    -(z_y - max_{i != y} z_i) / (z_1st - z_3rd); for three classes or more.
    """
    highest = logits.topk(3, dim=1).values
    spread = highest[:, 0] - highest[:, 2]
    return margin(logits, labels, targets) / (spread + _SMALLEST_DENOMINATOR)


def dlr_targeted(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """Return the targeted difference of logits ratio (Croce and Hein 2020, arXiv 2003.01690).

    -(z_y - z_t) / (z_1st - (z_3rd + z_4th) / 2); for four classes or more.
    """
    highest = logits.topk(4, dim=1).values
    spread = highest[:, 0] - 0.5 * (highest[:, 2] + highest[:, 3])
    return margin_targeted(logits, labels, targets) / (spread + _SMALLEST_DENOMINATOR)


def margin(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """Return max_{i != y} z_i - z_y: positive where another class leads."""
    column = labels.unsqueeze(1)
    others = logits.scatter(1, column, float("-inf")).max(dim=1).values
    return others - logits.gather(1, column).squeeze(1)


def margin_targeted(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """Return z_t - z_y: positive where the target leads the label."""
    return (logits.gather(1, targets.unsqueeze(1)) - logits.gather(1, labels.unsqueeze(1)))[:, 0]


LOSSES: Mapping[str, Loss] = MappingProxyType(
    {
        "ce": cross_entropy,
        "ce-targeted": cross_entropy_targeted,
        "dlr": dlr,
        "dlr-targeted": dlr_targeted,
        "margin": margin,
        "margin-targeted": margin_targeted,
    }
)

MINIMUM_CLASSES: Mapping[str, int] = MappingProxyType({"dlr": 3, "dlr-targeted": 4})
"""Fewest classes for which a loss is defined; two for those not named."""


def is_targeted(name: str) -> bool:
    """Return whether the loss called `name` reads target classes."""
    return name.endswith("-targeted")


def loss_for(name: str, classes: int) -> str:
    """Return the loss to use when `name` is asked for with this many classes.

    DLR needs three classes and its targeted form four; below that the margin that it normalises
    takes its place. Its sign, and with it which images count as broken, is the same.
    """
    if classes >= MINIMUM_CLASSES.get(name, 2):
        return name
    return "margin-targeted" if is_targeted(name) else "margin"
