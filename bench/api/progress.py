"""What a call from Python shows while it runs, and what it keeps of what it was told."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator
from typing import Any

from markupsafe import escape
from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from bench.executors.progress import Progress
from bench.formatting import duration, percent


class Listener:
    """Keeps the notices of a run and shows nothing.

    Attributes:
        notices: what the user should know that is no error, in order.
    """

    def __init__(self) -> None:
        self.notices: list[str] = []

    def progress(self, progress: Progress) -> None:
        """Take note that a block is finished, or that a stage begins."""

    def notice(self, text: str) -> None:
        """Keep a notice."""
        self.notices.append(text)


class TerminalListener(Listener):
    """Draws a bar for each stage on a terminal's standard error; it is gone afterwards."""

    def __init__(self, bars: Bars) -> None:
        super().__init__()
        self._bars = bars
        self._rows: dict[str, TaskID] = {}

    def progress(self, progress: Progress) -> None:
        """Move the bar of the stage."""
        if progress.stage not in self._rows:
            self._rows[progress.stage] = self._bars.add_task(progress.stage, standing="")
        self._bars.update(
            self._rows[progress.stage],
            completed=progress.done,
            total=progress.total,
            standing=_standing(progress),
        )


class NotebookListener(Listener):
    """Writes one line into a notebook's cell and keeps it up to date.

    Args:
        handle: IPython's, of what is displayed.
    """

    def __init__(self, handle: Any) -> None:
        super().__init__()
        self._handle = handle

    def progress(self, progress: Progress) -> None:
        """Write the line anew."""
        done = f"{progress.stage} {progress.done}/{progress.total}"
        self._handle.update(_Line(f"{done}, {_standing(progress)}"))


class _Line:
    """A text in a notebook's cell."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text

    def _repr_html_(self) -> str:
        return f'<div style="opacity:.7">{escape(self._text)}</div>'


@contextlib.contextmanager
def listener(show: bool) -> Iterator[Listener]:
    """Return what listens to a run: a line in a notebook, bars on a terminal, else silence.

    Args:
        show: whether anything is shown at all.
    """
    if show and (handle := _notebook_handle()) is not None:
        yield NotebookListener(handle)
        handle.update(_Line(""))
        return
    console = Console(stderr=True)
    if not (show and console.is_interactive):
        yield Listener()
        return
    columns = (
        TextColumn("{task.description:<12}"),
        BarColumn(bar_width=30),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TextColumn("{task.fields[standing]}"),
        TimeElapsedColumn(),
    )
    with Bars(*columns, console=console, transient=True) as bars:
        yield TerminalListener(bars)


def _notebook_handle() -> Any:
    """Return a handle of a new line in a notebook's cell; None outside of notebooks."""
    interactive = sys.modules.get("IPython")
    shell = None if interactive is None else interactive.get_ipython()
    if shell is None or not hasattr(shell, "kernel"):
        return None
    display = importlib.import_module("IPython.display").display
    return display(_Line("preparing"), display_id=True)


def _standing(progress: Progress) -> str:
    """Return the accuracy so far, and how long the rest takes where that is known."""
    label = "accuracy" if progress.stage in ("clean", "certify") else "robust"
    left = progress.seconds_left
    text = f"{label} {percent(progress.robust / max(progress.examples, 1))}%"
    return text if left is None else f"{text}, at most {duration(left)} left"
