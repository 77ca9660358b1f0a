"""Rounds of a growing selection: what each takes, when they stop, and how they are resumed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from bench.engines import Task
from bench.executors.progress import Progress
from bench.runs.rounds import run_in_rounds
from bench.statistics import anytime_interval
from bench.store.manifest import Selection
from bench.store.records import AttackBlock, CleanResults, Witnesses
from bench.suites import ThreatModel
from tests.silent import SilentObserver

POPULATION = 1000


class OneInThree:
    """An engine that breaks every third sample, in two blocks of ten seconds a round."""

    name, precision = "fast", "float32"

    def __init__(self) -> None:
        self.computed: list[str] = []

    def default_batch_size(self, module: nn.Module, images: Tensor) -> int:
        return 1

    def settings(self, task: Task) -> dict[str, Any]:
        return {}

    def run(
        self,
        task: Task,
        finished: Mapping[str, Any],
        report: Callable[[Progress], None],
        executor: Any = None,
    ) -> Iterator[AttackBlock]:
        index = task.indices.numpy()
        broken = index[index % 3 == 0]
        n = len(broken)
        blocks = [
            AttackBlock(
                key="00-clean-00000",
                seconds=10.0,
                clean=CleanResults(index, np.zeros_like(index), np.zeros_like(index)),
            ),
            AttackBlock(
                key="01-apgd-ce-00000",
                seconds=10.0,
                witnesses=Witnesses(
                    index=broken,
                    attack=np.full(n, "apgd-ce"),
                    prediction=np.ones(n, dtype=np.int64),
                    images=np.zeros((n, 1, 1, 1), dtype=np.float32),
                ),
            ),
        ]
        for block in blocks:
            if block.key not in finished:
                self.computed.append(f"{index[0]}:{block.key}")
                yield block
        report(Progress("apgd-ce", len(index), len(index), len(index) - n, len(index), 1.0))


def task_of(n: int) -> Task:
    """A task with samples 0 to n - 1."""
    return Task(
        module=nn.Identity(),
        images=torch.zeros(n, 1, 1, 1),
        labels=torch.zeros(n, dtype=torch.int64),
        indices=torch.arange(n),
        classes=2,
        threat_model=ThreatModel(norm="Linf", eps=0.1),
        seed=0,
        batch_size=1,
        device=torch.device("cpu"),
    )


def run(
    n: int,
    size: int,
    finished: Mapping[str, Any] | None = None,
    engine: OneInThree | None = None,
    **limits: float,
) -> tuple[list[AttackBlock], SilentObserver]:
    """The blocks of all rounds, and what was said of them."""
    selection = Selection(kind="random", n=n, seed=0, population=POPULATION, round=size).model_copy(
        update=limits
    )
    observer = SilentObserver()
    engine = engine or OneInThree()
    blocks = run_in_rounds(task_of(n), engine, selection, finished or {}, observer)
    return list(blocks), observer


def taken(blocks: list[AttackBlock]) -> list[int]:
    """The samples of the clean blocks, in their order."""
    return [int(index) for each in blocks if each.clean for index in each.clean.index]


@given(st.integers(1, 40), st.integers(1, 12))
def test_without_a_limit_every_sample_has_its_turn_once(n: int, size: int) -> None:
    blocks, observer = run(n, size)
    assert taken(blocks) == list(range(n))
    rounds = -(-n // size)
    assert len({each.key for each in blocks}) == 2 * rounds == len(blocks)
    assert blocks[-1].key.startswith(f"round-{rounds - 1:04d}-")
    assert not any("stopped" in each for each in observer.notices)
    last = observer.stages[-1]
    assert (last.examples, last.robust) == (n, n - len(range(0, n, 3)))
    assert last.seconds_left is None


@given(st.data())
def test_a_run_that_was_cut_off_anywhere_makes_the_missing_blocks_and_no_others(
    data: st.DataObject,
) -> None:
    whole, _ = run(30, 10)
    kept = data.draw(st.integers(0, len(whole)))
    engine = OneInThree()
    rest, observer = run(30, 10, {each.key: each for each in whole[:kept]}, engine)
    assert [each.key for each in rest] == [each.key for each in whole[kept:]]
    assert len(engine.computed) == len(rest)
    assert observer.notices == run(30, 10)[1].notices


def test_rounds_end_with_the_first_interval_that_is_narrow_enough() -> None:
    blocks, observer = run(900, 60, until_width=0.16)
    n = len(taken(blocks))
    robust = n - len(range(0, n, 3))
    before = n - 60
    assert anytime_interval(robust, n, POPULATION).width <= 0.16
    assert anytime_interval(before - len(range(0, before, 3)), before, POPULATION).width > 0.16
    assert "points wide" in observer.notices[-1]


@pytest.mark.parametrize(("budget", "rounds"), [(1.0, 1), (45.0, 2), (60.0, 3), (1e6, 5)])
def test_no_round_begins_that_would_exceed_the_budget(budget: float, rounds: int) -> None:
    """A round takes 20 seconds; blocks of an earlier run count with the time that they took."""
    blocks, _ = run(50, 10, budget_seconds=budget)
    assert len(taken(blocks)) == 10 * rounds
    finished = {each.key: each for each in blocks[:2]}
    rest, _ = run(50, 10, finished, budget_seconds=budget)
    assert len(rest) == len(blocks) - 2
    slower = {key: replace(each, seconds=1e9) for key, each in finished.items()}
    if budget < 1e6:
        assert run(50, 10, slower, budget_seconds=budget)[0] == []
