"""An observer for tests: keeps what it is told."""

from __future__ import annotations

from bench.executors.progress import Progress


class SilentObserver:
    """Keeps progress and notices."""

    def __init__(self) -> None:
        self.stages: list[Progress] = []
        self.notices: list[str] = []

    def progress(self, progress: Progress) -> None:
        """Keep where the run stands."""
        self.stages.append(progress)

    def notice(self, text: str) -> None:
        """Keep the notice."""
        self.notices.append(text)
