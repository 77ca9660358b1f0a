"""Random selections: drawn by their seed alone, grown round by round, resumed, stopped in time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from bench import data
from bench.candidates import Candidate
from bench.engines import Engine, Task, make_engine
from bench.errors import InputError
from bench.executors.progress import Progress
from bench.runs import manifest as plan
from bench.runs.evaluation import Evaluation
from bench.runs.manifest import make_selection, selected_rows
from bench.runs.session import RunResult, evaluate
from bench.runs.settings import Settings
from bench.store import Store
from bench.store.manifest import Manifest, Selection
from bench.store.records import Block
from bench.store.selection import permutation, rows_of
from bench.suites import load_suite
from tests.pages.runs import make_manifest
from tests.silent import SilentObserver


@given(st.integers(1, 300), st.integers(0, 5), st.data())
def test_random_selections_are_parts_of_one_permutation(
    population: int, seed: int, choices: st.DataObject
) -> None:
    order = permutation(population, seed)
    assert sorted(order) == list(range(population))
    n = choices.draw(st.integers(1, population))
    selection = Selection(kind="random", n=n, seed=seed, population=population)
    assert rows_of(selection, population).tolist() == sorted(order[:n])
    growing = selection.model_copy(update={"round": 7})
    assert rows_of(growing, population).tolist() == order[:n]


def test_another_seed_is_another_draw_and_the_draw_never_changes() -> None:
    assert permutation(8, 0) != permutation(8, 1)
    assert permutation(8, 0) == [4, 0, 6, 7, 2, 1, 5, 3]


def test_selections_as_they_were_keep_the_names_of_their_runs() -> None:
    manifest = make_manifest("digits-linf", "any", 100)
    assert manifest.model_dump()["selection"] == {"kind": "all", "n": 100}
    assert Manifest.model_validate(manifest.model_dump()).run == manifest.run


class _Killed(Exception):
    """Stands for the end of the process."""


class _Mortal:
    """An engine that dies after a number of blocks."""

    name, precision = "fast", "float32"

    def __init__(self, engine: Engine, blocks: int) -> None:
        self.engine = engine
        self.left = blocks

    def default_batch_size(self, module: nn.Module, images: Tensor) -> int:
        return self.engine.default_batch_size(module, images)

    def settings(self, task: Task) -> dict[str, Any]:
        return self.engine.settings(task)

    def run(
        self,
        task: Task,
        finished: Mapping[str, Block],
        report: Callable[[Progress], None],
        executor: Any = None,
    ) -> Iterator[Block]:
        for block in self.engine.run(task, finished, report):
            if not self.left:
                raise _Killed
            self.left -= 1
            yield block


def _run(module: nn.Module, root: Path, observer: SilentObserver, **changes: Any) -> RunResult:
    suite = load_suite("digits-linf")
    quick = suite.protocol("standard").attacks[:1]
    protocol = suite.protocol("standard").model_copy(update={"attacks": quick})
    suite = suite.model_copy(update={"protocols": {"standard": protocol}})
    fields = {"suite": suite, "engine": "fast", "eps": 0.05, "sample": "random"}
    settings = Settings(**(fields | changes))
    samples = data.load("digits")
    rows = selected_rows(settings, samples.size)
    candidate = Candidate("linear", module, {}, "")
    return evaluate(candidate, samples.take(rows), settings, Store(root), observer)


def test_a_run_stops_when_its_interval_is_narrow_and_resumes(
    linear_digits: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    observer = SilentObserver()
    alone = _run(linear_digits, tmp_path / "alone", observer, until_width=13)
    summary = alone.summary
    assert summary.n_examples in (200, 300)
    assert summary.confidence_intervals["robust_accuracy"].kind == "anytime"
    assert summary.confidence_intervals["robust_accuracy"].width <= 0.13
    assert summary.manifest.overrides == {
        "sample": "random",
        "until_width": 0.13,
        "eps": 0.05,
    }
    assert "points wide" in observer.notices[-1]
    drawn = permutation(360, 0)[: summary.n_examples]
    assert alone.folder.samples()["index"].tolist() == sorted(drawn)

    for blocks in (1, 2):
        engine = _Mortal(make_engine("fast"), blocks)
        monkeypatch.setattr(Evaluation, "engine", lambda _, __, engine=engine: engine)
        with pytest.raises(_Killed):
            _run(linear_digits, tmp_path / "killed", SilentObserver(), until_width=13)
    monkeypatch.undo()
    resumed = _run(linear_digits, tmp_path / "killed", SilentObserver(), until_width=13)
    assert resumed.folder.samples().equals(alone.folder.samples())
    assert resumed.summary.run == summary.run


def test_a_run_stops_when_its_budget_is_spent(linear_digits: nn.Module, tmp_path: Path) -> None:
    summary = _run(linear_digits, tmp_path, SilentObserver(), budget=1e-9).summary
    assert summary.n_examples == plan.SAMPLES_A_ROUND


def test_a_random_part_has_an_interval_of_the_test_set(
    linear_digits: nn.Module, tmp_path: Path
) -> None:
    summary = _run(linear_digits, tmp_path, SilentObserver(), n_examples=60).summary
    assert summary.n_examples == 60
    assert summary.confidence_intervals["clean_accuracy"].kind == "hypergeometric"
    whole = make_selection(Settings(load_suite("digits-linf"), engine="fast", sample="random"), 360)
    assert whole == Selection(kind="all", n=360)


def test_wrong_selections_are_named() -> None:
    settings = Settings(load_suite("digits-linf"), engine="fast", sample="random", n_examples=361)
    with pytest.raises(InputError, match="at most 360 examples"):
        selected_rows(settings, 360)
    first = Settings(load_suite("digits-linf"), engine="fast", until_width=3)
    with pytest.raises(InputError, match="add --sample random"):
        selected_rows(first, 360)
