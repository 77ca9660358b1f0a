"""Data sets of torchvision.datasets, downloaded if they are missing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.data.dataset import Dataset
from bench.data.download import download
from bench.data.image_files import Remarks
from bench.data.labels import resolve
from bench.data.pixels import as_pillow, pixels_of
from bench.data.request import Request
from bench.data.source import DataSource
from bench.data.value_range import range_notices
from bench.errors import InputError


def load(source: DataSource, request: Request) -> Dataset:
    """Return samples of a torchvision data set.

    Grey images stay grey, unless other images of the data set have colors.

    Raises:
        InputError: the class does not exist, its arguments are wrong, the download failed, images
            have several sizes, or labels are no classes.
    """
    import torch

    items = _open(source, request.directory)
    origin = f"torchvision.datasets.{source.torchvision}"
    pairs = _pairs(items, origin)
    if not pairs:
        raise InputError(f"{origin}: expected at least one image, got none")
    images, notices = _images([image for image, _ in pairs], source, request, origin)
    labels = _labels([label for _, label in pairs], origin)
    places, classes = resolve(labels, _names(items), source.classes, origin)
    dataset = Dataset.whole(
        source.label,
        images,
        torch.from_numpy(places),
        classes,
        (*notices, *range_notices(images, origin)),
    )
    return dataset.take(request.choose(dataset.size))


def _open(source: DataSource, directory: Path) -> Any:
    from torchvision import datasets

    name = str(source.torchvision)
    kind: Any = getattr(datasets, name, None)
    if not (isinstance(kind, type) and issubclass(kind, datasets.VisionDataset)):
        raise InputError(f"expected a data set of torchvision.datasets, got {name!r}")
    try:
        return kind(str(directory), **source.arguments)
    except RuntimeError:
        arguments = {**source.arguments, "download": True}
        download(lambda: kind(str(directory), **arguments), name, directory)
    except Exception as error:  # each class raises its own errors for wrong arguments
        raise InputError(f"torchvision.datasets.{name}: field arguments: {error}") from error
    return kind(str(directory), **source.arguments)


def _pairs(items: Any, origin: str) -> list[tuple[Any, Any]]:
    pairs = []
    for place in range(len(items)):
        try:
            image, label = items[place]
        except Exception as error:  # a damaged file, or samples of another form
            raise InputError(
                f"{origin}: expected an image and a label, got {type(error).__name__} for image "
                f"{place}: {' '.join(str(error).split())}"
            ) from error
        pairs.append((image, label))
    return pairs


def _images(
    given: Sequence[Any], source: DataSource, request: Request, origin: str
) -> tuple[Any, tuple[str, ...]]:
    import torch
    from PIL import Image

    remarks = Remarks()
    arrays = []
    for place, image in enumerate(given):
        if not isinstance(image, Image.Image):
            raise InputError(
                f"{origin}: expected a PIL image, got {type(image).__name__} for image {place}"
            )
        try:
            pixels, done = pixels_of(image, source.channels)
        except (ValueError, OSError) as error:
            raise InputError(f"{origin}: image {place}: {error}") from error
        arrays.append(pixels)
        remarks.add(done, f"image {place}")
    channels = max(len(pixels) for pixels in arrays)
    arrays = [pixels.repeat(channels // len(pixels), axis=0) for pixels in arrays]
    if request.preprocessing is None:
        images = [torch.from_numpy(pixels) for pixels in arrays]
    else:
        images = [
            request.preprocessing(as_pillow(pixels.repeat(3 // channels, axis=0)))
            for pixels in arrays
        ]
    for place, tensor in enumerate(images):
        if tensor.shape != images[0].shape:
            raise InputError(
                f"{origin}: expected images of one size, got shape {tuple(tensor.shape)} for image "
                f"{place} and {tuple(images[0].shape)} for image 0; resize them to one size and "
                "name their folder by `folder`"
            )
    return torch.stack(images), remarks.notices(origin, len(images))


def _labels(given: Sequence[Any], origin: str) -> Any:
    arrays: list[Any] = []
    for place, label in enumerate(given):
        try:
            array = np.asarray(label)
        except ValueError:  # its parts make no array
            array = np.empty((0, 0))
        if array.ndim > 1 or array.dtype.kind not in "biufU" or array.shape != np.shape(given[0]):
            raise InputError(
                f"{origin}: expected one class for each image, got a label of type "
                f"{type(label).__name__} for image {place}"
            )
        arrays.append(array)
    return np.stack(arrays)


def _names(items: Any) -> tuple[str, ...] | None:
    """Return the class names of a data set; several names of one class are joined."""
    names = getattr(items, "classes", None)
    if not names:
        return None
    return tuple(name if isinstance(name, str) else ", ".join(map(str, name)) for name in names)
