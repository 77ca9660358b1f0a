"""The data sets that are known by name; a new one is one file with one call.

A module in `bench/data/named/` registers a data set when it is imported, and all of them are. Other
packages call `register_dataset` themselves, or offer a `NamedDataset` as an entry point of the
group `bench.datasets`.
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
    """Return None: nothing is missing, since the data come with a package."""
    return None


@dataclass(frozen=True)
class NamedDataset:
    """All that the program knows about a data set.

    Attributes:
        name: as suites and submissions write it.
        shape: (C, H, W) of an image.
        test_size: how many images its published numbers are measured on.
        load: returns the samples that a request asks for; raises InputError where files are missing
            or damaged.
        missing: from the data folder to what is not on this disk yet, in words, or None.
        mean, standard_deviation: of the training images' pixels, one number a channel.
        radii: the usual radius of a norm, in the [0, 1] pixel scale.
        leaderboards: the norms for which RobustBench has a leaderboard of this data set.
        robustbench: RobustBench's name of the data set; None where it has none.
        preprocessed: whether each model brings a preprocessing of its own, from a PIL image.
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
    """Make a data set known by its name; returns it.

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
    """Import the modules of `bench.data.named`, and what other packages offer."""
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
    """Return (C, H, W) of the images of the data set called `name`; None if it is not known."""
    dataset = named_datasets().get(name)
    return None if dataset is None else dataset.shape


def _known(name: str) -> str:
    known = named_datasets()
    if name not in known:
        raise ValueError(f"expected a data set among {', '.join(known)}")
    return name


DatasetName = Annotated[str, AfterValidator(_known), Field(examples=["cifar10"])]
"""In a validated record, the name of a data set that is known."""
