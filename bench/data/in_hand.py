"""Images and labels that a program holds already, as the data of a suite."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict

from bench.data.arrays import CHANNELS, from_arrays
from bench.data.dataset import Dataset
from bench.data.labels import class_names
from bench.data.request import Request
from bench.data.source import DataSource
from bench.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

PREFIX = "images-"
"""How the names of such data begin; the rest is from their digest."""


class DataInHand(DataSource):
    """A source whose samples are in memory.

    Attributes:
        dataset: all samples.
        like: name of the data set that candidates for these images are made for; empty: unknown.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    dataset: Any
    like: str = ""

    def check_fields(self) -> None:
        """Accept the source: no field of a file is given."""

    @property
    def kind(self) -> str:
        """The kind of this source."""
        return "memory"

    @property
    def label(self) -> str:
        """A short name for records and pages."""
        return self.like or str(self.dataset.name)


def load(source: DataSource, request: Request) -> Dataset:
    """Return the samples of a `DataInHand` that are wanted."""
    assert isinstance(source, DataInHand)
    dataset: Dataset = source.dataset
    return dataset.take(request.choose(dataset.size))


def dataset_in_hand(
    images: Tensor | npt.ArrayLike,
    labels: Tensor | npt.ArrayLike,
    classes: int | Sequence[str] | None = None,
) -> Dataset:
    """Return images and labels as a data set that is named by their digest.

    Args:
        images: (N, C, H, W), or (N, H, W, C) where the shape tells; floats in [0, 1], or integers
            as `bench.data.value_range.scale` takes them.
        labels: (N,) whole numbers in [0, K), one-hot, or names of classes.
        classes: the names in the order of the network's outputs, or their number K; None: K is the
            highest label + 1.

    Raises:
        InputError: an array cannot be read for certain.
    """
    pixels, is_tensor = _array(images, "images")
    layout = "NCHW" if is_tensor and pixels.ndim == 4 and pixels.shape[1] in CHANNELS else None
    names = None if classes is None else class_names(np.asarray(classes), "images")
    dataset = from_arrays(
        "images", pixels, _array(labels, "labels")[0], "images", classes=names, layout=layout
    )
    return replace(dataset, name=f"{PREFIX}{dataset.sha256()[:12]}")


def _array(value: Any, name: str) -> tuple[npt.NDArray[Any], bool]:
    """Return an array or a tensor as an array, and whether it was a tensor."""
    if value is None:
        raise InputError(f"{name}: expected a tensor or an array, got None")
    is_tensor = hasattr(value, "detach")
    if not is_tensor:
        return np.asarray(value), False
    tensor = value.detach().cpu()
    if tensor.is_floating_point() and tensor.dtype.itemsize < 4:
        tensor = tensor.float()  # NumPy has no bfloat16
    return tensor.numpy(), True
