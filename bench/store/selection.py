"""Which samples a run takes, and how to load them again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import data
from bench.data import Dataset
from bench.errors import InputError
from bench.statistics import (
    anytime_interval,
    exact_binomial_interval,
    exact_hypergeometric_interval,
)
from bench.statistics.intervals import Interval
from bench.store.manifest import Manifest, Selection
from bench.suites import Suite

if TYPE_CHECKING:
    from torch import Tensor

CHOICE_OF_SAMPLES = {"n_examples", "every", "sample", "until_width", "budget_seconds"}
"""Overrides that take a part of the images and change nothing else."""


def permutation(size: int, seed: int) -> list[int]:
    """Return a random order of 0 ... size - 1 that depends on `seed` and on no library."""
    return sorted(
        range(size), key=lambda place: hashlib.sha256(f"{seed}/{place}".encode()).digest()
    )


def rows_of(selection: Selection, population: int, listed: Sequence[int] = ()) -> Tensor:
    """Return the indices (n,) in the data set that a selection means.

    Args:
        population: number of samples that the protocol takes in all, the first ones of the data
            set.
        listed: the places of a `listed` selection.

    Raises:
        InputError: more samples than there are.
    """
    import torch  # slow to import, and readers of the store do not need it

    if (selection.n - 1) * (selection.step or 1) >= population:
        raise InputError(
            f"expected at most {population} examples, all that the protocol takes; "
            f"got {selection.n}"
        )
    if selection.kind == "listed":
        return torch.tensor(listed, dtype=torch.int64)
    if selection.kind != "random":
        return torch.arange(selection.n) * (selection.step or 1)
    assert selection.seed is not None
    rows = torch.tensor(permutation(population, selection.seed)[: selection.n])
    # A growing selection keeps the order of the draw; otherwise the order does not matter.
    return rows if selection.round else rows.sort().values


def interval_of(selection: Selection, successes: int, n: int) -> Interval:
    """Return the 95% interval of an accuracy that a selection of samples allows.

    The whole test set, and its first samples, count as a sample from the population of images. They
    get an exact binomial interval, which says nothing about the rest of the test set. A random part
    gets an interval of the test set's accuracy: an exact hypergeometric interval if its size was
    fixed in advance, otherwise an interval that holds whenever the drawing stops.

    Args:
        successes: number of the n samples that count for the accuracy.
        n: number of samples that were evaluated; fewer than the selection's if it stopped early.
    """
    if selection.kind != "random":
        return exact_binomial_interval(successes, n)
    assert selection.population is not None
    if selection.round is None:
        return exact_hypergeometric_interval(successes, n, selection.population)
    return anytime_interval(successes, n, selection.population)


def dataset_of(
    manifest: Manifest,
    suite: Suite,
    data_dir: Path | None,
    preprocessing: Callable[[Any], Tensor] | None,
    listed: Sequence[int] = (),
) -> Dataset:
    """Return the samples that a run evaluated, checked by their digest.

    Args:
        listed: places of the samples, if the run's selection is `listed`.

    Raises:
        InputError: the suite's data are not those of the run, or cannot be loaded.
    """
    dataset = data.load_source(
        suite.data,
        data_dir,
        preprocessing=preprocessing,
        choose=lambda size: rows_of(manifest.selection, suite.n_examples or size, listed),
    )
    if dataset.sha256() != manifest.dataset.sha256:
        raise InputError(
            f"{manifest.suite}/{manifest.candidate}@{manifest.run}: expected the samples that it "
            f"was made with, {manifest.dataset.name} with SHA-256 "
            f"{manifest.dataset.sha256[:16]}..., got {dataset.name} with "
            f"{dataset.sha256()[:16]}...; name the suite by --suite and the data by --data-dir"
        )
    return dataset
