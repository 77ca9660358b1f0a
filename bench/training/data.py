"""The images of a training: in memory or in a folder, augmented at random, some held out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.nn import functional

from bench.data.folders import list_classes
from bench.errors import InputError
from bench.training.draws import FLIPS, generator_for

SIDE = 224
SHORTER_SIDE = 256
"""What the shorter side is resized to before the centre is cut out."""
SMALLEST_AREA = 0.08
WIDEST_RATIO = 4 / 3
TRIES = 10
READERS = 16

Border = Literal["black", "reflected"]
"""What lies around an image that is shifted: black pixels, or its own pixels in a mirror."""

Box = tuple[float, float, float, float]
"""Left, upper, right and lower edge in pixels."""


class FolderImages:
    """Images of a list of files, each of which is read whenever it is asked for.

    Args:
        files: One an image.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = list(files)

    def __getitem__(self, chosen: Tensor) -> Tensor:
        """Return the centres (n, 3, 224, 224) in [0, 1] of images (n,), after resizing.

        Raises:
            InputError: If a file cannot be read.
        """
        return self._read(chosen.tolist(), [_centre] * len(chosen))

    def random_crops(self, chosen: Tensor, generator: torch.Generator) -> Tensor:
        """Return random parts of images (n,), resized to (n, 3, 224, 224), in [0, 1].

        A part has 8 to 100 percent of the area and an aspect ratio from 3/4 to 4/3: C. Szegedy et
        al., "Going Deeper with Convolutions", 2015.

        Args:
            chosen: Indices of the images.
            generator: Source of the draws; on the CPU.

        Raises:
            InputError: If a file cannot be read.
        """
        draws = torch.rand(len(chosen), TRIES, 4, generator=generator).tolist()
        boxes = [lambda size, own=own: random_box(size, own) for own in draws]
        return self._read(chosen.tolist(), boxes)

    def _read(self, chosen: list[int], boxes: Sequence[Callable[[tuple[int, int]], Box]]) -> Tensor:
        with ThreadPoolExecutor(READERS) as pool:
            pixels = list(pool.map(_read, [self.files[each] for each in chosen], boxes))
        return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float().div(255)


class TrainingData(Protocol):
    """What a recipe reads of a data set."""

    @property
    def name(self) -> str:
        """As suites and submissions write it."""

    @property
    def images(self) -> Tensor | FolderImages:
        """(N, C, H, W), float32, in [0, 1]; or files, which are read batch by batch."""

    @property
    def labels(self) -> Tensor:
        """(N,), int64."""


class FolderData:
    """Training data in a folder with one subfolder of images a class, such as ImageNet's.

    Args:
        name: The name of the data set.
        folder: Its training part.

    Raises:
        InputError: If there is no such folder, or its layout is different.
    """

    def __init__(self, name: str, folder: Path) -> None:
        found = list_classes(folder)
        self.name = name
        self.images = FolderImages(found.files)
        self.labels = torch.tensor(found.labels, dtype=torch.int64)


def random_box(size: tuple[int, int], draws: Sequence[Sequence[float]]) -> Box:
    """Return a random part of an image: the first of the tries that fits into it.

    Args:
        size: Width and height of the image.
        draws: For each try four numbers in [0, 1): for the area, the ratio, and the corner.
    """
    width, height = size
    for area, ratio, x, y in draws:
        wanted = width * height * (SMALLEST_AREA + (1 - SMALLEST_AREA) * area)
        aspect = math.exp((2 * ratio - 1) * math.log(WIDEST_RATIO))
        w, h = round(math.sqrt(wanted * aspect)), round(math.sqrt(wanted / aspect))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(x * (width - w + 1)), int(y * (height - h + 1))
            return left, top, left + w, top + h
    # The image is so long and narrow that nothing fits: take the largest part of an allowed ratio.
    breadth, length = min(width, height * WIDEST_RATIO), min(height, width * WIDEST_RATIO)
    right, lower = (width + breadth) / 2, (height + length) / 2
    return right - breadth, lower - length, right, lower


def augment(
    images: Tensor,
    crop_padding: int,
    flip: bool | Tensor,
    cutout: int,
    generator: torch.Generator,
    border: Border = "black",
) -> Tensor:
    """Crop, mirror and cut out at random, each image independently.

    The cut-out is that of T. DeVries and G. W. Taylor, "Improved Regularization of Convolutional
    Neural Networks with Cutout", 2017: its centre lies anywhere, so a part of it may lie
    outside the image.

    Args:
        images: (N, C, H, W), in [0, 1].
        crop_padding: Width in pixels of the border that is added before the crop is taken.
        flip: Whether an image is mirrored left to right with probability 1/2; or which images are,
            (N,), bool.
        cutout: Side of the square that is blacked out, in pixels; 0 for none.
        generator: Source of every draw; on the CPU.
        border: What the border shows.

    Returns:
        Images of the same shape, in the channels-last memory format.
    """
    count, _, height, width = images.shape
    rows = torch.arange(height).expand(count, height)
    columns = torch.arange(width).expand(count, width)
    if crop_padding:
        mode = "reflect" if border == "reflected" else "constant"
        images = functional.pad(images, (crop_padding,) * 4, mode=mode)
        corners = torch.randint(0, 2 * crop_padding + 1, (2, count, 1), generator=generator)
        rows, columns = rows + corners[0], columns + corners[1]
    if isinstance(flip, Tensor):
        columns = torch.where(flip[:, None], columns.flip(1), columns)
    elif flip:
        mirrored = torch.rand(count, 1, generator=generator) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    samples = torch.arange(count)[:, None, None]
    # The channel axis separates the advanced indices, so that they come first: (N, H, W, C). As
    # (N, C, H, W), this is the channels-last format.
    pixels = images[samples, :, rows[:, :, None], columns[:, None, :]]
    if cutout:
        centres = torch.rand(2, count, 1, generator=generator)
        inside_rows = (torch.arange(height) - (centres[0] * height - 0.5)).abs() < cutout / 2
        inside_columns = (torch.arange(width) - (centres[1] * width - 0.5)).abs() < cutout / 2
        inside = inside_rows[:, :, None] & inside_columns[:, None, :]
        pixels = pixels.masked_fill(inside[..., None].to(pixels.device), 0.0)
    return pixels.permute(0, 3, 1, 2)


def alternating_flips(chosen: Tensor, count: int, seed: int, epoch: int) -> Tensor:
    """Return which images are mirrored in an epoch: half at random in the first, then in turn.

    An image is mirrored in exactly every second epoch, so that two epochs show both of its sides.
    K. Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", 2024, section 3.6.

    Args:
        chosen: Indices (n,) of the images.
        count: How many images the data set has.
        seed: Decides which half comes first.
        epoch: From 0.

    Returns:
        (n,), bool.
    """
    first = torch.rand(count, generator=generator_for(seed, FLIPS)) < 0.5
    return first[chosen] ^ bool(epoch % 2)


def split(count: int, held_out: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return the indices of the images to train on, and of the held-out ones.

    They depend on the arguments alone: trainings with the same seed on the same data that hold out
    the same number hold out the same images. The shipped mixes rely on it: a change would let them
    be chosen on images that their bases were trained on.

    Raises:
        InputError: If no image is left to train on.
    """
    if held_out >= count:
        raise InputError(
            f"expected held_out below the {count} training images, got {held_out}; lower it"
        )
    order = torch.randperm(count, generator=generator_for(seed))
    return order[held_out:].sort().values, order[:held_out].sort().values


def _centre(size: tuple[int, int]) -> Box:
    """Return the central square that is 224 pixels wide when the shorter side has 256."""
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
