"""Data that do not fit the network: other classes, other channels; and the way out."""

from __future__ import annotations

from torch import Tensor

from bench.data import DataSource
from bench.errors import InputError


def check_class_count(name: str, logits: object, classes: int, source: DataSource) -> None:
    """Refuse logits of another number of classes than the data have, and say how to name them.

    Args:
        name: of the candidate.
        logits: whatever it returned; anything but an (n, K) tensor is passed over.
        classes: K of the data.
        source: of the data.

    Raises:
        InputError: the two numbers differ.
    """
    if not isinstance(logits, Tensor) or logits.ndim != 2 or logits.shape[1] == classes:
        return
    n, outputs = logits.shape
    if source.name is not None:
        what, advice = "has", "name a candidate for this data set"
    else:
        what = "names" if source.classes or source.class_order else "shows"
        advice = _advice(classes, outputs, source)
    raise InputError(
        f"candidate {name}: expected logits of shape {(n, classes)}, got {(n, outputs)}: "
        f"{source.label} {what} {classes} classes, the network has {outputs} outputs; {advice}"
    )


def _advice(classes: int, outputs: int, source: DataSource) -> str:
    field = "class_order" if source.class_order else "classes"
    if classes > outputs:
        one_based = " (labels begin with 0: subtract 1 if yours begin with 1)"
        return (
            f"leave out the images of classes that the network does not know, or correct `{field}`"
            f"{one_based if source.npz and classes == outputs + 1 else ''}"
        )
    if source.classes:
        return f"name all {outputs} classes in `classes`, in the order of the network's outputs"
    return (
        f"if the data lack some of the network's classes, name all {outputs}, in the order of its "
        f"outputs, as `classes: [...]` beside `{source.kind}` in the suite (`classes: {outputs}` "
        f"if they are called 0 to {outputs - 1})"
    )


def other_images(images: Tensor, source: DataSource | None) -> str:
    """Return how images (n, C, H, W) could be read otherwise, for a network that failed on them."""
    if source is None:
        return ""
    read = f"; the images were read with {images.shape[1]} channels"
    if source.kind in ("folder", "torchvision"):
        other = 1 if images.shape[1] == 3 else 3
        return (
            f"{read}: if the network takes {other}, write `channels: {other}` in the suite's data"
        )
    if source.npz is not None:
        return (
            f"{read}: `layout: NHWC` or `layout: NCHW` in the suite's data says which axis they are"
        )
    return ""
