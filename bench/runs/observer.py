"""Who is told what a run does."""

from __future__ import annotations

from typing import Protocol

from bench.executors.progress import Progress


class Observer(Protocol):
    """Receives a run's progress; the command line displays it."""

    def progress(self, progress: Progress) -> None:
        """Take note that a block is finished, or that a stage begins."""

    def notice(self, text: str) -> None:
        """Take a message for the user that is no error."""
