"""The register of named data sets; a new one is one file with one call.

All modules of `bench/data/named/` are imported, and each registers its data sets. Other packages
call `register_dataset`, or offer a `NamedDataset` as an entry point of the group `bench.datasets`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from bench.data.dataset import Dataset
from bench.data.request import Request
from bench.errors import InputError

ENTRY_POINT_GROUP = "bench.datasets"


def _never(directory: Path) -> str | None:
    """Return None: nothing is missing, because a package contains the data."""
    return None


@dataclass(frozen=True)
class NamedDataset:
    """All that the program knows about a data set.

    Attributes:
        name: name in suites and submissions.
        shape: (C, H, W) of an image.
        test_size: number of images on which its published numbers are measured.
        load: returns the samples of a request; raises InputError if files are missing or damaged.
        missing: returns what has to be downloaded to the data folder, in words, or None.
        mean, standard_deviation: of the training images' pixels, one number for each channel.
        radii: the usual radius of each norm, in the [0, 1] pixel scale.
        leaderboards: the norms for which RobustBench has a leaderboard of this data set.
        robustbench: RobustBench's name of the data set; None: it has none.
        preprocessed: whether each model has its own preprocessing, from a PIL image.
        training_folder: the folder, below the data folder, from which training images are read
            batch by batch; None: `load` holds them in memory.
    """

    name: str
    shape: tuple[int, int, int]
    test_size: int
    load: Callable[[Request], Dataset]
    missing: Callable[[Path], str | None] = _never
    mean: tuple[float, ...] = ()
    standard_deviation: tuple[float, ...] = ()
    radii: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    leaderboards: tuple[str, ...] = ()
    robustbench: str | None = None
    preprocessed: bool = False
    training_folder: str | None = None


_registered: dict[str, NamedDataset] = {}


def register_dataset(dataset: NamedDataset) -> NamedDataset:
    """Register a data set by its name, and return it.

    Raises:
        InputError: another data set has the name.
    """
    if _registered.setdefault(dataset.name, dataset) is not dataset:
        raise InputError(
            f"data set {dataset.name}: expected a name that is free, got one that is registered"
        )
    return dataset


@cache
def _discover() -> None:
    """Import the modules of `bench.data.named`, and register the data sets of other packages."""
    from bench.data import named

    for module in pkgutil.iter_modules(named.__path__):
        importlib.import_module(f"{named.__name__}.{module.name}")
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        dataset: Any = entry.load()
        if not isinstance(dataset, NamedDataset):
            raise InputError(
                f"entry point {entry.name} of {ENTRY_POINT_GROUP}: expected a NamedDataset, got "
                f"{type(dataset).__name__}"
            )
        if _registered.get(dataset.name) is not dataset:
            register_dataset(dataset)


def named_datasets() -> Mapping[str, NamedDataset]:
    """Return all data sets that are known by name, sorted by it."""
    _discover()
    return MappingProxyType(dict(sorted(_registered.items())))


def named_dataset(name: str) -> NamedDataset:
    """Return the data set called `name`.

    Raises:
        InputError: there is none.
    """
    found = named_datasets()
    if name not in found:
        raise InputError(f"expected a data set among {', '.join(found)}; got {name!r}")
    return found[name]


def image_shape(name: str) -> tuple[int, int, int] | None:
    """Return the shape (C, H, W) of the images of a named data set; None if it is unknown."""
    dataset = named_datasets().get(name)
    return None if dataset is None else dataset.shape


def _known(name: str) -> str:
    known = named_datasets()
    if name not in known:
        raise ValueError(f"expected a data set among {', '.join(known)}")
    return name


DatasetName = Annotated[str, AfterValidator(_known), Field(examples=["cifar10"])]
"""In a validated record, the name of a data set that is known."""
