"""A user's own images and labels as arrays in an .npz file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.data.dataset import Dataset
from bench.data.labels import class_names, resolve
from bench.data.request import Request
from bench.data.source import DataSource
from bench.data.value_range import range_notices, scale
from bench.errors import InputError

CHANNELS = (1, 3)


def load(source: DataSource, request: Request) -> Dataset:
    """Return samples of an .npz with `images`, `labels` and, optionally, `classes`.

    Raises:
        InputError: the file is missing or damaged, or an array is ambiguous.
    """
    assert source.npz is not None
    arrays = _read(source.npz)
    origin = str(source.npz)
    names = class_names(arrays["classes"], origin) if "classes" in arrays else None
    dataset = from_arrays(
        source.label,
        arrays["images"],
        arrays["labels"],
        origin,
        names=names,
        classes=source.classes,
        layout=source.layout,
    )
    return dataset.take(request.choose(dataset.size))


def from_arrays(
    name: str,
    images: npt.NDArray[Any],
    labels: npt.NDArray[Any],
    origin: str,
    *,
    names: tuple[str, ...] | None = None,
    classes: tuple[str, ...] | None = None,
    layout: str | None = None,
) -> Dataset:
    """Return a data set of arrays.

    Args:
        name: of the data set.
        images: (N, C, H, W) or (N, H, W, C), integers or floats in [0, 1].
        labels: as in `bench.data.labels.resolve`.
        origin: for messages.
        names: how the data call their classes.
        classes: all classes, in the order of the network's outputs; None: those of the data.
        layout: as in `channels_first`.

    Raises:
        InputError: an array cannot be read for certain.
    """
    import torch

    _check_shapes(images, labels, origin)
    images = channels_first(images, layout, origin)
    places, found = resolve(labels, names, classes, origin)
    pixels = scale(images, origin)
    return Dataset.whole(
        name,
        torch.from_numpy(np.ascontiguousarray(pixels)),
        torch.from_numpy(places),
        found,
        range_notices(pixels, name),
    )


def _read(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Read the arrays that are used here; other arrays in the file are ignored."""
    try:
        archive = np.load(path, allow_pickle=False)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except Exception as error:  # zipfile and numpy raise many kinds for a damaged archive
        raise InputError(f"{path}: damaged or not an .npz file: {error}") from error
    if isinstance(archive, np.ndarray):
        raise InputError(
            f"{path}: expected an .npz with `images` and `labels`, got a single array; save them "
            "by np.savez(path, images=..., labels=...)"
        )
    with archive:
        came = ", ".join(archive.files) or "none"
        if not {"images", "labels"} <= set(archive.files):
            raise InputError(f"{path}: expected arrays `images` and `labels`, got {came}")
        wanted = [key for key in ("images", "labels", "classes") if key in archive.files]
        return {key: _array(archive, key, path) for key in wanted}


def _array(archive: Any, key: str, path: Path) -> npt.NDArray[Any]:
    try:
        array: npt.NDArray[Any] = archive[key]
    except Exception as error:  # zipfile and numpy raise many kinds for a damaged archive
        if "allow_pickle" not in str(error):
            raise InputError(f"{path}: array `{key}` is damaged: {error}") from error
        advice = {
            "images": "resize the images to one size and save np.stack(images)",
            "labels": "save np.array(labels, dtype=np.int64)",
            "classes": "save np.array(classes, dtype=str)",
        }
        raise InputError(
            f"{path}: expected `{key}` as an array of numbers or texts, got an array of Python "
            f"objects, which is not read because it could run code; {advice[key]}"
        ) from error
    return array


def _check_shapes(images: npt.NDArray[Any], labels: npt.NDArray[Any], origin: str) -> None:
    came = f"got shapes {images.shape} and {labels.shape}"
    if images.ndim == 3:
        raise InputError(
            f"{origin}: expected images of 4 dimensions and one label for each image; {came}; save "
            "grey images as images[:, None]"
        )
    if images.ndim != 4 or labels.ndim not in (1, 2) or len(labels) != len(images):
        raise InputError(
            f"{origin}: expected images of 4 dimensions and one label for each image; {came}"
        )
    if not images.size:
        raise InputError(f"{origin}: expected at least one image, got shape {images.shape}")


def channels_first(images: npt.NDArray[Any], layout: str | None, origin: str) -> npt.NDArray[Any]:
    """Return images as (N, C, H, W).

    Args:
        images: (N, C, H, W) or (N, H, W, C).
        layout: "NCHW" or "NHWC"; None: the layout with 1 or 3 channels, otherwise the one in which
            images are square and have fewer channels than rows.
        origin: for messages.

    Raises:
        InputError: both are possible.
    """
    if layout is None:
        first, height, last = images.shape[1], images.shape[2], images.shape[3]
        fits = [first in CHANNELS, last in CHANNELS]
        if not any(fits):
            fits = [first < height == last, last < height == first]
        if fits[0] == fits[1]:
            raise InputError(
                f"{origin}: expected images whose shape tells the axis of the channels, got "
                f"{images.shape}; write `layout: NCHW` or `layout: NHWC` beside `npz` in the suite"
            )
        layout = "NCHW" if fits[0] else "NHWC"
    return images if layout == "NCHW" else images.transpose(0, 3, 1, 2)
