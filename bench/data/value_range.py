"""Convert arrays of pixels to floats in [0, 1] by type and range."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from bench.data.pixels import Pixels
from bench.errors import InputError

ROUNDING = 1e-6
"""How far a float may lie outside [0, 1], as by rounding to float32."""
DARK = 0.1
"""Images whose largest value is smaller were probably divided by 255 twice."""


def scale(images: npt.NDArray[Any], origin: str) -> Pixels:
    """Return images as float32 in [0, 1].

    uint8 and other integers from 0 to 255 are divided by 255, uint16 by 65535. Floats and booleans
    keep their values.

    Args:
        images: array of any shape, not empty.
        origin: for messages.

    Raises:
        InputError: the type is another, values are out of range, or integers have an ambiguous
            range.
    """
    kind = images.dtype.kind
    if kind == "b":
        return images.astype(np.float32)
    if kind == "f":
        return _floats(images, origin)
    if kind not in "iu":
        raise InputError(
            f"{origin}: expected images of integers or floats, got {images.dtype}"
            + (
                "; an object array often comes of images of different sizes: resize them to one, "
                "and save np.stack(images)"
                if kind == "O"
                else ""
            )
        )
    return _integers(images, origin)


def _floats(images: npt.NDArray[Any], origin: str) -> Pixels:
    finite = np.isfinite(images)
    if not finite.all():
        wrong = np.flatnonzero(~finite.reshape(len(images), -1).all(axis=1))
        raise InputError(
            f"{origin}: expected images in [0, 1], got NaN or infinity in {len(wrong):,} of "
            f"{len(images):,} images; the first is image {wrong[0]}"
        )
    low, high = float(images.min()), float(images.max())
    if low < -ROUNDING or high > 1 + ROUNDING:
        if low < -ROUNDING:
            advice = "undo the normalization, which belongs into the network"
        elif high <= 255 + ROUNDING:
            advice = "divide the images by 255, or clip what a resizing left outside"
        else:
            advice = "divide them by the largest value that they can have"
        raise InputError(
            f"{origin}: expected images in [0, 1], got values in [{low:.7g}, {high:.7g}]; {advice}"
        )
    return images.astype(np.float32).clip(0, 1)


def _integers(images: npt.NDArray[Any], origin: str) -> Pixels:
    low, high = int(images.min()), int(images.max())
    came = f"{images.dtype} images with values in [{low}, {high}]"
    if low < 0:
        raise InputError(f"{origin}: expected values >= 0, got {came}; save floats in [0, 1]")
    is_unsigned_level = images.dtype.kind == "u" and images.dtype.itemsize <= 2
    if high == 1 and is_unsigned_level:
        largest = 255 if images.dtype.itemsize == 1 else 65535
        raise InputError(
            f"{origin}: expected {images.dtype} images to use their range up to {largest}, got "
            f"{came}; if 1 is white, save images.astype(np.float32) or multiply by {largest}"
        )
    if high <= 1:
        return images.astype(np.float32)
    if images.dtype == np.uint16 or images.dtype == np.dtype(">u2"):
        if high <= 255:
            raise InputError(
                f"{origin}: expected uint16 images to use their range up to 65535, got {came}; if "
                "255 is white, save images.astype(np.uint8)"
            )
        return images.astype(np.float32) / np.float32(65535)
    if high > 255:
        raise InputError(
            f"{origin}: expected integers up to 255, got {came}; save uint16 where 65535 is white, "
            "or floats in [0, 1]"
        )
    return images.astype(np.float32) / np.float32(255)


def range_notices(images: Any, origin: str) -> tuple[str, ...]:
    """Return a notice if all images (array or tensor) in [0, 1] are nearly black."""
    high = float(images.max())
    if high >= DARK:
        return ()
    return (
        f"{origin}: the largest value of all images is {high:.3g} of 1, nearly black; were they "
        "divided twice, or do they use few of their levels (such as 0 to 16 of 255)?",
    )
