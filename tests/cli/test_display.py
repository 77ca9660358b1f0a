"""The live display: what is printed for good is not erased by the bars."""

from __future__ import annotations

from dataclasses import replace

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
        observer = shown.candidate("kept")
        observer.progress(Progress("clean", done=1, total=2, robust=1, examples=2))
        assert shown._bars.live.is_started
        observer.notice("kept")
        assert shown._bars.live.is_started
    assert drawing == [False, False]
    assert not shown._bars.live.is_started


def test_workers_and_their_rates_are_shown_where_there_are_several(
    capsys: pytest.CaptureFixture[str],
) -> None:
    progress = Progress("square", done=2, total=4, robust=1, examples=4)
    several = replace(progress, workers=3, samples_per_second=12.3456, passes_per_second=4321.0)
    with Display() as shown:
        observer = shown.candidate("it")
        for each in (progress, replace(several, stage="fab-t"), replace(progress, workers=2)):
            observer.progress(replace(each, stage=f"{each.stage} of {each.workers}"))
    _, one, three, two = capsys.readouterr().out.splitlines()
    assert "workers" not in one
    assert three.endswith("3 workers, 12.3 samples/s, 4,321 passes/s")
    assert two.endswith("2 workers")


def test_a_stage_ends_with_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with Display() as shown:
        observer = shown.candidate("it")
        for done in (0, 2, 4, 4, 4):
            observer.progress(Progress("square", done=done, total=4, robust=1, examples=4))
    shown_lines = capsys.readouterr().out.splitlines()[1:]
    assert [line.split(",")[0] for line in shown_lines] == ["it: square 0/4", "it: square 4/4"]


def test_candidates_side_by_side_have_a_bar_each(monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(force_terminal=True, force_interactive=True)
    monkeypatch.setattr(display, "table_console", lambda: console)
    with Display() as shown:
        observers = [shown.candidate(name) for name in ("a", "b")]
        for stage in ("clean", "apgd-ce"):
            for each in observers:
                each.progress(Progress(stage, done=1, total=2, robust=1, examples=2))
        assert [task.description for task in shown._bars.tasks] == ["a apgd-ce", "b apgd-ce"]
        shown.failure("a", "it failed")
        observers[1].progress(Progress("apgd-t", done=1, total=2, robust=1, examples=2))
        assert [task.description for task in shown._bars.tasks] == ["b apgd-ce", "apgd-t"]
