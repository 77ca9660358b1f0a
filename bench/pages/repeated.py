"""Means and standard deviations of trainings that differ only in their seed."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from bench.pages.certified import CertifiedEntry


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation over trainings."""

    mean: float
    deviation: float


@dataclass(frozen=True)
class RepeatedTraining:
    """One recipe under one setting, trained with several seeds and certified alike.

    Attributes:
        entries: at least two entries, sorted by seed.
    """

    entries: tuple[CertifiedEntry, ...]

    @property
    def recipe(self) -> str:
        """The recipe's name."""
        return str(self.entries[0].manifest.information["training"]["recipe"])

    @property
    def sigma(self) -> float:
        """Standard deviation of the noise, in the [0, 1] pixel scale."""
        return self.entries[0].summary.certified.sigma

    @property
    def seeds(self) -> list[int]:
        """The trainings' seeds."""
        return [_seed(entry) for entry in self.entries]

    @property
    def average_certified_radius(self) -> Spread:
        """The spread of the average certified radius."""
        return _spread([entry.summary.certified.average_certified_radius for entry in self.entries])

    @property
    def clean_accuracy(self) -> Spread:
        """The spread of the accuracy without perturbation, a fraction."""
        return _spread([entry.summary.clean_accuracy for entry in self.entries])

    def accuracy_at(self, radius: float) -> Spread:
        """Return the spread of the certified accuracy at `radius`, a fraction."""
        return _spread([entry.accuracy_at(radius) for entry in self.entries])


def repeated_trainings(entries: Sequence[CertifiedEntry]) -> list[RepeatedTraining]:
    """Return the trainings repeated with other seeds, largest mean radius first.

    Trainings belong together if their submissions record the same recipe and settings, and if they
    were certified in the same way on the same samples.
    """
    groups: dict[str, dict[int, CertifiedEntry]] = {}
    for entry in entries:
        training = entry.manifest.information.get("training") or {}
        if {"recipe", "settings", "seed"} <= training.keys():
            groups.setdefault(_key(entry), {})[_seed(entry)] = entry
    found = [
        RepeatedTraining(tuple(entry for _, entry in sorted(group.items())))
        for group in groups.values()
        if len(group) > 1
    ]
    return sorted(found, key=lambda each: -each.average_certified_radius.mean)


def _key(entry: CertifiedEntry) -> str:
    manifest = entry.manifest
    training = manifest.information["training"]
    what = (
        training["recipe"],
        training["settings"],
        entry.summary.certified.sigma,
        manifest.precision,
        manifest.engine_settings,
        manifest.selection.model_dump(),
    )
    return json.dumps(what, sort_keys=True, default=str)


def _seed(entry: CertifiedEntry) -> int:
    return int(entry.manifest.information["training"]["seed"])


def _spread(values: Sequence[float]) -> Spread:
    return Spread(statistics.mean(values), statistics.stdev(values))
