"""Load images and labels, by a data set's name or from a suite's source."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import platformdirs

from bench.data import arrays, folders, in_hand, torchvision
from bench.data.dataset import Dataset
from bench.data.registry import named_dataset
from bench.data.request import Choose, Preprocessing, Request, Split, the_first
from bench.data.source import DataSource

LOADERS: dict[str, Callable[[DataSource, Request], Dataset]] = {
    "name": lambda source, request: named_dataset(str(source.name)).load(request),
    "torchvision": torchvision.load,
    "folder": folders.load,
    "npz": arrays.load,
    "memory": in_hand.load,
}
"""By the kind of a source: the field that is given, or memory."""


def default_data_dir() -> Path:
    """Return the folder where data sets are looked for and downloaded to by default."""
    configured = os.environ.get("BENCH_DATA_DIR")
    return (
        Path(configured) if configured else platformdirs.user_cache_path("tradeoff-bench") / "data"
    )


def load(name: str, split: Split = "test", data_dir: Path | None = None) -> Dataset:
    """Return a whole data set by its name.

    Args:
        split: "train" or "test".
        data_dir: folder of the data sets; None: `default_data_dir()`.

    Raises:
        InputError: the name is unknown, files are damaged, or missing files cannot be downloaded.
    """
    request = Request(data_dir or default_data_dir(), the_first(None, name), split)
    return named_dataset(name).load(request)


def load_source(
    source: DataSource,
    data_dir: Path | None = None,
    n_examples: int | None = None,
    preprocessing: Preprocessing | None = None,
    choose: Choose | None = None,
) -> Dataset:
    """Return the test samples of a suite.

    Args:
        n_examples: only the first `n_examples` samples; None: all.
        choose: returns the chosen rows (n,) for the data set's size; instead of `n_examples`.
        preprocessing: from a PIL image to (C, H, W) in [0, 1]; for ImageNet, where each model has
            its own, and for folders with images of several sizes.

    Raises:
        InputError: data are missing, damaged or ambiguous, or there are fewer than `n_examples`.
    """
    request = Request(
        data_dir or default_data_dir(),
        choose or the_first(n_examples, source.label),
        preprocessing=preprocessing,
    )
    return LOADERS[source.kind](source, request)


def missing(source: DataSource, data_dir: Path | None = None) -> str | None:
    """Return what has to be downloaded, with its size if known; None if nothing."""
    if source.name is not None:
        return named_dataset(source.name).missing(data_dir or default_data_dir())
    for path in (source.folder, source.npz):
        if path is not None and not path.exists():
            return str(path)
    return None
