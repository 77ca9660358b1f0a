"""What a run shows: a live display on a terminal, one line for each event elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from types import TracebackType

from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as ProgressBars
from rich.text import Text

from bench.cli.tables import table_console, table_of
from bench.executors.progress import Progress
from bench.flags.failures import has_failures
from bench.formatting import accuracy_text, count, duration, flag_text, percent, rate
from bench.runs.many import Turn
from bench.runs.planning import Prospect
from bench.runs.session import RunResult

SECONDS_BETWEEN_LINES = 10.0


class Shown:
    """Draws what one candidate's run reports; see `bench.runs.observer.Observer`."""

    def __init__(self, display: Display, name: str) -> None:
        self._display = display
        self._name = name

    def progress(self, progress: Progress) -> None:
        """Show that a block is finished, or that a stage begins."""
        self._display.progress(self._name, progress)

    def notice(self, text: str) -> None:
        """Show what the user should know although it is no error."""
        self._display.notice(self._name, text)


class Display:
    """Draws what the runs of candidates report, one after the other or side by side."""

    def __init__(self) -> None:
        self.console = table_console()
        self._live = self.console.is_interactive
        self._bars = ProgressBars(
            TextColumn("  {task.description:<12}"),
            BarColumn(bar_width=30),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TextColumn("{task.fields[robust]}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            TextColumn("{task.fields[workers]}"),
            console=self.console,
            transient=True,
            disable=not self._live,
        )
        self._rows: dict[str, dict[str, TaskID]] = {}
        """By candidate and stage, of those whose turn it is."""
        self._last: dict[str, tuple[str, int, float]] = {}
        """By candidate: the stage that was shown last, how much of it was done, and when."""

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

    def candidate(self, name: str) -> Shown:
        """Note that a candidate's turn begins; return what draws its run."""
        self._rows[name] = {}
        self._last[name] = ("", 0, 0.0)
        self._line(f"{name}: evaluating")
        return Shown(self, name)

    def progress(self, name: str, progress: Progress) -> None:
        """Show how far a candidate's run is."""
        accuracy = progress.robust / max(progress.examples, 1)
        label = "robust" if progress.stage not in {"clean", "certify"} else "accuracy"
        robust = f"{label} {percent(accuracy)}%"
        left = (
            ""
            if progress.seconds_left is None
            else f"at most {duration(progress.seconds_left)} left"
        )
        workers = _workers(progress)
        if self._live:
            self._bars.update(
                self._row(name, progress),
                completed=progress.done,
                total=progress.total,
                robust=robust,
                left=left,
                workers=workers,
            )
            return
        stage, done, shown = self._last[name]
        is_end = progress.done == progress.total and progress.done != done
        if stage != progress.stage or is_end or time.monotonic() - shown >= SECONDS_BETWEEN_LINES:
            self._last[name] = (progress.stage, progress.done, time.monotonic())
            parts = [f"{progress.stage} {progress.done}/{progress.total}", robust, left, workers]
            self._line(f"{name}: {', '.join(part for part in parts if part)}")

    def notice(self, name: str, text: str) -> None:
        """Show a message about a candidate's run that is no error."""
        self._line(f"{name}: {text}")

    def failure(self, name: str, reason: str) -> None:
        """Show that a candidate could not be evaluated."""
        self._clear(name)
        self._line(f"{name}: {reason}", style="red")

    def turns(self, turns: Iterable[Turn]) -> int:
        """Draw what became of each candidate; returns the exit code.

        A run some samples of which failed counts as failed, even if it was complete before.
        """
        failed = unavailable = False
        for turn in turns:
            if turn.result is not None:
                self.result(turn.result)
                failed |= has_failures(turn.result.summary)
            elif turn.unavailable:
                unavailable = True
                self.failure(turn.name, f"unavailable: {turn.unavailable}")
            else:
                failed = True
                self.failure(turn.name, turn.failure)
        return 1 if failed else 3 if unavailable else 0

    def result(self, result: RunResult) -> None:
        """Show the result of a candidate."""
        summary = result.summary
        self._clear(summary.manifest.candidate)
        kind = summary.kind
        bounds = summary.confidence_intervals["robust_accuracy"]
        variant = " (variant)" if summary.is_variant else ""
        again = "" if kind.is_imported else "; --again makes a new run"
        known = f" - was complete already, nothing was computed{again}" if result.reused else ""
        self._line(
            f"{summary.manifest.candidate}: {kind.clean_label} {percent(summary.clean_accuracy)}%, "
            f"{kind.overview(summary).headline} {accuracy_text(summary.robust_accuracy, bounds)}, "
            f"n = {summary.n_examples}{variant}{known}",
            style="bold",
        )
        for flag in summary.flags:
            self._line(f"  flag {flag_text(flag)}", style="yellow")
        self._line(f"  records: {result.folder.path}")

    def plan(self, prospects: Sequence[Prospect], price: float | None = None) -> None:
        """Show what would be done.

        Args:
            price: of a worker for an hour; None: costs are not shown.
        """
        costs = [] if price is None else ["cost"]
        table = table_of("candidate", "missing", "workers", "time", "worker hours", *costs)
        table.title = "Plan"
        total = (0.0, 0.0)
        for each in prospects:
            cells = [each.name, each.missing or "all here", count(each.workers)]
            if each.estimate is None or each.worker_hours is None:
                table.add_row(*map(Text, cells), "unknown until it is here")
                continue
            hours = each.worker_hours
            total = total[0] + hours[0], total[1] + hours[1]
            cells += [f"{duration(each.estimate.low)} to {duration(each.estimate.high)}"]
            table.add_row(*map(Text, [*cells, *_hours_and_cost(hours, price)]))
        if len(prospects) > 1:
            table.add_section()
            table.add_row("all", "", "", "", *_hours_and_cost(total, price))
        self.console.print(table)

    def _line(self, text: str, style: str = "") -> None:
        # The thread of the bars erases the lines that it drew, and must not do so meanwhile.
        if self._live:
            self._bars.stop()
        self.console.print(Text(text, style=style), soft_wrap=True)
        if self._live:
            self._bars.start()

    def _row(self, name: str, progress: Progress) -> TaskID:
        """Return the bar of a stage; of candidates side by side each has one for its last stage."""
        rows = self._rows[name]
        others = len(self._rows) > 1
        if progress.stage not in rows:
            for stage in list(rows) if others else ():
                self._bars.remove_task(rows.pop(stage))
            rows[progress.stage] = self._bars.add_task(
                f"{name} {progress.stage}" if others else progress.stage,
                total=progress.total,
                robust="",
                left="",
                workers="",
            )
        for row in rows.values():
            self._bars.update(row, workers="")
        return rows[progress.stage]

    def _clear(self, name: str) -> None:
        for row in self._rows.pop(name, {}).values():
            self._bars.remove_task(row)


def _hours_and_cost(hours: tuple[float, float], price: float | None) -> list[str]:
    """Return the least and the most worker hours, and what they cost, in words."""
    texts = [" to ".join(f"{each:,.3g}" for each in hours)]
    return (
        texts if price is None else [*texts, " to ".join(f"{price * each:,.2f}" for each in hours)]
    )


def _workers(progress: Progress) -> str:
    """Return how many workers there are and what they do together; "" if there is one."""
    if progress.workers == 1:
        return ""
    samples, passes = progress.samples_per_second, progress.passes_per_second
    if samples is None or passes is None:
        return f"{progress.workers} workers"
    return f"{progress.workers} workers, {rate(samples)} samples/s, {rate(passes)} passes/s"
