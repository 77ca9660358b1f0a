"""Whole runs of each kind on digits by any executor, and all records of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from bench import data
from bench.candidates import Candidate
from bench.candidates.registry import find_candidates
from bench.data import Dataset
from bench.executors.progress import Progress
from bench.executors.stage import Executor
from bench.runs import sweep
from bench.runs.session import Plan, evaluate, make_plan
from bench.runs.settings import Settings
from bench.store import Store
from bench.suites import load_suite
from benchmarks.faults import COMMANDS, records, write_suites


class Unseen:
    """An observer that looks away."""

    def progress(self, progress: Progress) -> None:
        """Do nothing."""

    def notice(self, text: str) -> None:
        """Do nothing."""


@dataclass(frozen=True)
class Planned:
    """A run that is not made yet."""

    candidate: Candidate
    images: Dataset
    settings: Settings

    @property
    def plan(self) -> Plan:
        """Its engine and its task."""
        return make_plan(self.candidate, self.images, self.settings)


def planned(kind: str, folder: Path, batch_size: int | None = None, samples: int = 24) -> Planned:
    """Return a run of a kind on a few digits; its suite is written into a folder."""
    write_suites(folder)
    command, name, *rest = COMMANDS[kind]
    suite = load_suite(str(folder / f"faults-{name}.yaml"))
    options = dict(zip(rest[::2], rest[1::2], strict=True))
    settings = Settings(suite, protocol=options.get("--protocol"), batch_size=batch_size)
    if command == "sweep":
        bases = options["--accurate"], options["--robust"]
        settings = sweep.sweep_settings(settings, (0.0, 0.5, 1.0), 8, 2)
        (reference,) = find_candidates([sweep.mix_name(*bases, sweep.INSPECTED_ALPHA)], suite)
        candidate = sweep.sweep_candidate(reference, sweep.mix_name(*bases))
    else:
        (reference,) = find_candidates([options["--candidate"]], suite)
        candidate = reference.load()
    return Planned(candidate, data.load("digits").first(samples), settings)


def results_of(
    kind: str, executor: Executor | None, folder: Path, batch_size: int | None = None
) -> dict[str, pd.DataFrame]:
    """Return the records of a run of a kind, made anew."""
    run = planned(kind, folder, batch_size)
    results = folder / f"{kind}-{len(list(folder.iterdir()))}"
    evaluate(run.candidate, run.images, run.settings, Store(results), Unseen(), executor=executor)
    return records(results)
