"""Sweeps: one mix at many weights."""

from __future__ import annotations

import pyarrow as pa

from bench.formatting import accuracy_text, percent
from bench.store.kinds import Columns, Kind, Overview
from bench.store.records import SweepBlock
from bench.store.summary import SweepSummary, best_point
from bench.store.tables import ATTEMPT_COLUMNS, OUTCOME_COLUMNS


class SweepRecords(Kind):
    """A fixed mix at many weights under a cheap attack; what survives is an upper bound."""

    name = "sweep"
    maker = "bench.runs.sweep:Sweep"
    command = "bench sweep"
    block = SweepBlock
    summary = SweepSummary
    columns = Columns(
        samples=pa.schema(
            [
                ("alpha", pa.float64()),
                *OUTCOME_COLUMNS,
                ("witness", pa.int64()),
            ]
        ),
        attempts=ATTEMPT_COLUMNS.insert(0, pa.field("alpha", pa.float64())),
    )
    has_section = True
    robust_label = "attacked"

    def overview(self, summary: SweepSummary) -> Overview:
        """Return the best point, and a row for each weight."""
        best = best_point(summary.sweep)
        bounds = summary.confidence_intervals["robust_accuracy"]
        attacked = accuracy_text(summary.robust_accuracy, bounds)
        return Overview(
            headline=f"at best (alpha {best.alpha:g}) {self.robust_label}",
            results=[
                ("attacked", f"{attacked} at alpha {best.alpha:g}, the best one; an upper bound")
            ],
            columns=("alpha", "clean accuracy", "after the cheap attack"),
            rows=[
                (
                    f"{point.alpha:g}",
                    percent(point.clean_accuracy),
                    percent(point.attacked_accuracy),
                )
                for point in summary.sweep
            ],
        )
