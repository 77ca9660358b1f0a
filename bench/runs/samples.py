"""The samples of a suite, as candidates take them."""

from __future__ import annotations

from pathlib import Path

from bench import data
from bench.candidates import Candidate
from bench.data import Dataset
from bench.runs.manifest import selected_rows
from bench.runs.settings import Settings


class Samples:
    """The suite's samples, loaded once, unless a model has its own preprocessing."""

    def __init__(self, settings: Settings, data_dir: Path | None) -> None:
        self.settings = settings
        self.data_dir = data_dir
        self._shared: Dataset | None = None

    def of(self, candidate: Candidate) -> Dataset:
        """Return the samples as a candidate takes them."""
        if candidate.preprocessing is not None:
            return self._load(candidate)
        if self._shared is None:
            self._shared = self._load(candidate)
        return self._shared

    def _load(self, candidate: Candidate) -> Dataset:
        return data.load_source(
            self.settings.suite.data,
            self.data_dir,
            preprocessing=candidate.preprocessing,
            choose=lambda size: selected_rows(self.settings, size),
        )
