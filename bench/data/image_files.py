"""Read image files into one tensor; remarks are collected over all files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.data.pixels import Pixels, as_pillow, pixels_of
from bench.data.request import Preprocessing
from bench.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor


class Remarks:
    """Remarks on how images of a data set were read, with the number of images and the first."""

    def __init__(self) -> None:
        self._found: dict[str, list[str]] = {}

    def add(self, remarks: Sequence[str], image: str) -> None:
        """Note the remarks on an image."""
        for remark in remarks:
            self._found.setdefault(remark, []).append(image)

    def notices(self, origin: str, size: int) -> tuple[str, ...]:
        """Return one line for each remark.

        Args:
            origin: name of the data set.
            size: number of images that were read.
        """
        return tuple(
            f"{origin}: {len(images):,} of {size:,} images: {remark}; the first is {images[0]}"
            for remark, images in self._found.items()
        )


def read_images(
    paths: Sequence[Path],
    name: str,
    channels: int = 3,
    preprocessing: Preprocessing | None = None,
) -> tuple[Tensor, tuple[str, ...]]:
    """Read image files of one size.

    Args:
        name: name of the data set, for messages.
        channels: 1 for grey, 3 for RGB.
        preprocessing: from a PIL image to (C, H, W) in [0, 1]; it may give all images one size.

    Returns:
        images (n, C, H, W) float32 in [0, 1], and notices.

    Raises:
        InputError: a file is ambiguous, cannot be read, or has another size; the message names it.
    """
    import torch

    images: list[Tensor] = []
    remarks = Remarks()
    for path in paths:
        pixels, done = _read(path, name, channels)
        remarks.add(done, path.name)
        image = (
            torch.from_numpy(pixels) if preprocessing is None else preprocessing(as_pillow(pixels))
        )
        if images and image.shape != images[0].shape:
            raise InputError(
                f"{path}: expected an image of shape {tuple(images[0].shape)} as the first one "
                f"has, got {tuple(image.shape)}; resize the images to one size"
            )
        images.append(image)
    return torch.stack(images), remarks.notices(name, len(paths))


def _read(path: Path, name: str, channels: int) -> tuple[Pixels, tuple[str, ...]]:
    from PIL import Image

    try:
        with Image.open(path) as image:
            return pixels_of(image, channels)
    except Exception as error:  # Pillow's decoders raise many kinds for damaged files
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: expected an image of {name}; {reason}") from error
