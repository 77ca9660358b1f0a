"""Measurements after the last block, shared out among workers.

They take a pass over each clean image and each witness: next to nothing beside the attacks, but
too much for a driver without a GPU.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch

from bench.engines import AttackTask
from bench.executors.stage import Doing, Executor, Report, Stage, Work, Worker
from bench.store.records import IntArray, MeasurementBlock, Measurements, Witnesses
from bench.store.tables import Tables

NAME = "measure"


class Measurer(Protocol):
    """A kind of run that measures each sample on its own."""

    def measured(self, task: Any, tables: Tables) -> Tables:
        """Return the tables with columns of `samples` filled in."""


@dataclass(frozen=True)
class Measuring(Work):
    """The measurements on some samples.

    Attributes:
        kind: what is measured.
        tables: of the run, or of the samples at hand.
        columns: of `samples` that it fills in.
    """

    kind: Measurer
    tables: Tables
    columns: tuple[str, ...] = ()

    def blocks(
        self, worker: Worker, task: AttackTask, report: Report
    ) -> Iterator[MeasurementBlock]:
        """Measure all samples at once."""
        start = time.perf_counter()
        samples = self.kind.measured(task, self.tables).samples
        values = samples[list(self.columns)].astype("float64").to_numpy()
        found = Measurements(index=samples["index"].to_numpy(np.int64), values=values)
        yield MeasurementBlock(key=NAME, seconds=time.perf_counter() - start, measurements=found)
        report(Doing(len(samples), 0, len(samples)))

    def settled(self, block: MeasurementBlock) -> IntArray:
        """Return the measured samples."""
        return block.measurements.index

    def of(self, indices: IntArray) -> Measuring:
        """Return the work with the tables of these samples."""
        samples = self.tables.samples
        chosen = samples[samples["index"].isin(indices)].reset_index(drop=True)
        witnesses = self.tables.witnesses
        if witnesses is not None:
            witnesses = _those_of(witnesses, indices)
        tables = replace(
            self.tables, samples=chosen, witnesses=witnesses, smallest=None, smallest_images=None
        )
        return replace(self, tables=tables)


def measured(kind: Measurer, task: AttackTask, tables: Tables, executor: Executor) -> Tables:
    """Return the tables with what is measured on each sample, by all workers of an executor.

    Args:
        kind: its `measured` fills in columns of numbers, a sample's on its own.
        task: all samples.
        tables: of the finished blocks.
        executor: does it; with one worker, or a randomized candidate, all samples are one shard.
    """
    types = {"double": np.float64, "bool": np.bool_}
    numbers = {
        each.name: types[str(each.type)]
        for each in tables.columns.samples
        if str(each.type) in types
    }
    columns = tuple(numbers)
    work = Measuring(kind, tables, columns)
    stage = Stage(NAME, NAME, work, 1.0, exactly=0 if task.randomized else None)
    rows = torch.arange(len(task.labels))
    samples = tables.samples.copy()
    place = {index: row for row, index in enumerate(samples["index"].tolist())}
    values = np.full((len(samples), len(columns)), np.nan)
    for block in executor.do(task, [stage], rows, {}, lambda _: None):
        at = [place[index] for index in block.measurements.index.tolist()]
        values[at] = block.measurements.values
    for number, name in enumerate(columns):
        samples[name] = values[:, number].astype(numbers[name])
    return replace(tables, samples=samples)


def _those_of(witnesses: Witnesses, indices: IntArray) -> Witnesses | None:
    chosen = np.isin(witnesses.index, indices)
    if not chosen.any():
        return None
    return Witnesses(**{name: values[chosen] for name, values in vars(witnesses).items()})
