"""Training images that lie in a folder and are read as they are needed: ImageNet's."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from bench.data.folders import list_classes
from bench.errors import InputError

SIDE = 224
SHORTER_SIDE = 256
"""What the shorter side is resized to before the centre is cut out."""
SMALLEST_AREA = 0.08
WIDEST_RATIO = 4 / 3
TRIES = 10
READERS = 16

Box = tuple[float, float, float, float]
"""Left, upper, right and lower edge in pixels."""


class FolderImages:
    """Images of a list of files, each read anew whenever it is asked for.

    Args:
        files: one an image.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = list(files)

    def __getitem__(self, chosen: Tensor) -> Tensor:
        """The centres (n, 3, 224, 224) in [0, 1] of images (n,), after resizing.

        Raises:
            InputError: a file cannot be read.
        """
        return self._read(chosen.tolist(), [_centre] * len(chosen))

    def random_crops(self, chosen: Tensor, generator: torch.Generator) -> Tensor:
        """Random parts of images (n,), resized to (n, 3, 224, 224), in [0, 1].

        A part has 8 to 100 percent of the area and an aspect ratio from 3/4 to 4/3: C. Szegedy et
        al., "Going Deeper with Convolutions", 2015.

        Args:
            generator: source of the draws; on the CPU.

        Raises:
            InputError: a file cannot be read.
        """
        draws = torch.rand(len(chosen), TRIES, 4, generator=generator).tolist()
        boxes = [lambda size, own=own: random_box(size, own) for own in draws]
        return self._read(chosen.tolist(), boxes)

    def _read(self, chosen: list[int], boxes: Sequence[Callable[[tuple[int, int]], Box]]) -> Tensor:
        with ThreadPoolExecutor(READERS) as pool:
            pixels = list(pool.map(_read, [self.files[each] for each in chosen], boxes))
        return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float().div(255)


class FolderData:
    """A folder with one subfolder of images a class, as a recipe reads it.

    Args:
        name: of the data set.
        folder: its training part.

    Raises:
        InputError: there is no such folder, or it is laid out in another way.
    """

    def __init__(self, name: str, folder: Path) -> None:
        found = list_classes(folder)
        self.name = name
        self.images = FolderImages(found.files)
        self.labels = torch.tensor(found.labels, dtype=torch.int64)


def random_box(size: tuple[int, int], draws: Sequence[Sequence[float]]) -> Box:
    """A part of an image of `size` (width, height); the first of the tries that fits into it.

    Args:
        draws: for each try four numbers in [0, 1): of the area, the ratio, and the corner.
    """
    width, height = size
    for area, ratio, x, y in draws:
        wanted = width * height * (SMALLEST_AREA + (1 - SMALLEST_AREA) * area)
        aspect = math.exp((2 * ratio - 1) * math.log(WIDEST_RATIO))
        w, h = round(math.sqrt(wanted * aspect)), round(math.sqrt(wanted / aspect))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(x * (width - w + 1)), int(y * (height - h + 1))
            return left, top, left + w, top + h
    # An image so long and narrow that nothing fits: the largest part of an allowed ratio.
    breadth, length = min(width, height * WIDEST_RATIO), min(height, width * WIDEST_RATIO)
    right, lower = (width + breadth) / 2, (height + length) / 2
    return right - breadth, lower - length, right, lower


def _centre(size: tuple[int, int]) -> Box:
    """The central square that is 224 pixels wide when the shorter side has 256."""
    side = min(size) * SIDE / SHORTER_SIDE
    left, top = (size[0] - side) / 2, (size[1] - side) / 2
    return left, top, left + side, top + side


def _read(path: Path, box: Callable[[tuple[int, int]], Box]) -> np.ndarray[tuple[int, ...], Any]:
    try:
        with Image.open(path) as image:
            part = image.convert("RGB").resize(
                (SIDE, SIDE), Image.Resampling.BILINEAR, box=box(image.size), reducing_gap=2.0
            )
            return np.asarray(part)
    except (FileNotFoundError, UnidentifiedImageError, OSError) as error:
        raise InputError(f"{path}: expected an image; {error}") from error
