"""The live display: what is printed for good is not erased by the bars."""

from __future__ import annotations

import pytest
from rich.console import Console

from bench.cli import display
from bench.cli.display import Display
from bench.executors.progress import Progress


def test_nothing_draws_bars_while_a_line_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    drawing: list[bool] = []

    class Watched(Console):
        def print(self, *objects: object, **options: object) -> None:
            if objects and "kept" in str(objects[0]):
                drawing.append(shown._bars.live.is_started)
            super().print(*objects, **options)  # type: ignore[arg-type]

    console = Watched(force_terminal=True, force_interactive=True)
    monkeypatch.setattr(display, "table_console", lambda: console)
    shown = Display()
    with shown:
        shown.candidate("kept")
        shown.progress(Progress("clean", done=1, total=2, robust=1, examples=2))
        assert shown._bars.live.is_started
        shown.notice("kept")
        assert shown._bars.live.is_started
    assert drawing == [False, False]
    assert not shown._bars.live.is_started
