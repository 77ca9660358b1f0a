"""What a run shows: a live display on a terminal, a line an event elsewhere."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from bench import records, runner
from bench.cli.tables import table_console, table_of
from bench.formatting import duration, flag_text, interval, percent, radius

SECONDS_BETWEEN_LINES = 10.0
REPEATABLE = ("evaluation", "certification", "sweep")
"""Kinds of runs whose commands have --again."""


class Display:
    """Draws what the runner reports."""

    def __init__(self) -> None:
        self.console = table_console()
        self._live = self.console.is_terminal
        self._bars = Progress(
            TextColumn("  {task.description:<12}"),
            BarColumn(bar_width=30),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TextColumn("{task.fields[robust]}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=self.console,
            transient=True,
            disable=not self._live,
        )
        self._rows: dict[str, TaskID] = {}
        self._candidate = ""
        self._last = ("", 0.0)

    def __enter__(self) -> Display:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bars.stop()

    def candidate(self, name: str) -> None:
        """A candidate's turn begins."""
        self._candidate = name
        self._clear()
        self._line(f"{name}: evaluating")

    def progress(self, progress: records.Progress) -> None:
        """A block is finished, or a stage begins."""
        accuracy = progress.robust / max(progress.examples, 1)
        label = "robust" if progress.stage not in {"clean", "certify"} else "accuracy"
        robust = f"{label} {percent(accuracy)}%"
        left = (
            ""
            if progress.seconds_left is None
            else f"at most {duration(progress.seconds_left)} left"
        )
        if self._live:
            if progress.stage not in self._rows:
                self._rows[progress.stage] = self._bars.add_task(
                    progress.stage, total=progress.total, robust="", left=""
                )
            self._bars.update(
                self._rows[progress.stage],
                completed=progress.done,
                total=progress.total,
                robust=robust,
                left=left,
            )
            return
        stage, shown = self._last
        if (
            stage != progress.stage
            or progress.done == progress.total
            or time.monotonic() - shown >= SECONDS_BETWEEN_LINES
        ):
            self._last = (progress.stage, time.monotonic())
            parts = [f"{progress.stage} {progress.done}/{progress.total}", robust, left]
            self._line(f"{self._candidate}: {', '.join(part for part in parts if part)}")

    def notice(self, text: str) -> None:
        """Something the user should know that is no error."""
        self._line(f"{self._candidate}: {text}")

    def failure(self, name: str, reason: str) -> None:
        """A candidate could not be evaluated."""
        self._clear()
        self._line(f"{name}: {reason}", style="red")

    def outcome(self, outcome: runner.Outcome) -> None:
        """A candidate is evaluated."""
        self._clear()
        summary = outcome.summary
        intervals = summary.confidence_intervals
        variant = " (variant)" if summary.is_variant else ""
        again = "; --again makes a new run" if summary.manifest.kind in REPEATABLE else ""
        known = f" - was complete already, nothing was computed{again}"
        self._line(
            f"{summary.manifest.candidate}: clean {percent(summary.clean_accuracy)}%, "
            f"{_robustness(summary)} {percent(summary.robust_accuracy)}% "
            f"[{interval(intervals['robust_accuracy'])}], n = {summary.n_examples}{variant}"
            f"{known if outcome.reused else ''}",
            style="bold",
        )
        for flag in summary.flags:
            self._line(f"  flag {flag_text(flag)}", style="yellow")
        self._line(f"  records: {outcome.folder.path}")

    def plan(self, rows: Sequence[tuple[str, str, str]]) -> None:
        """What would be done."""
        table = table_of("candidate", "missing", "time on this device")
        table.title = "Plan"
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        self.console.print(table)

    def _line(self, text: str, style: str = "") -> None:
        self.console.print(Text(text, style=style), soft_wrap=True)

    def _clear(self) -> None:
        for task in self._rows.values():
            self._bars.remove_task(task)
        self._rows.clear()


def _robustness(summary: records.Summary) -> str:
    """What a run's robust accuracy is."""
    if summary.sweep is not None:
        return f"at best (alpha {records.best_point(summary.sweep).alpha:g}) attacked"
    if summary.certified is None:
        return "robust"
    average = summary.certified.average_certified_radius
    eps = radius(summary.manifest.threat_model.eps)
    return f"ACR {average:.3f}, certified at L2 radius {eps}"
