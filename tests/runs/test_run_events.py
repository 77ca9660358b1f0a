"""What a run writes down: seldom enough to be small, and nothing that workers did is missing."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.executors.progress import Progress
from bench.runs.run_events import RunEvents
from bench.store import RunFolder
from bench.store.events import read_events
from bench.store.records import Block
from tests.silent import SilentObserver


def begun(folder: Path) -> RunEvents:
    return RunEvents(RunFolder(folder), SilentObserver())


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 100), st.booleans())))
def test_sums_of_lines_are_those_of_the_shards(
    tmp_path_factory: pytest.TempPathFactory, shards: list[tuple[str, int, bool]]
) -> None:
    folder = tmp_path_factory.mktemp("run")
    events = begun(folder)
    with events.running():
        events.work_begins(["square"], 3)
        for worker, samples, is_lost in shards:
            if is_lost:
                events.worker_joins(worker)
            events.shard_begins(worker, "square", samples)
            if is_lost:
                events.worker_lost(worker, "gone")
            else:
                events.shard_ends(worker, "square", samples, 0.5, 10.0)
    lines = read_events(folder)
    ended = [line for line in lines if line["event"] == "shard-ends"]
    finished = [samples for _, samples, is_lost in shards if not is_lost]
    assert sum(line["samples"] for line in ended) == sum(finished)
    assert sum(line["shards"] for line in ended) == len(finished)
    assert sum(line["seconds"] for line in ended) == pytest.approx(0.5 * len(finished))
    lost = [line for line in lines if line["event"] == "worker-lost"]
    assert [line["samples"] for line in lost] == [each[1] for each in shards if each[2]]
    assert lines[-1]["event"] == "run-ends"


def test_many_short_shards_and_blocks_make_few_lines(tmp_path: Path) -> None:
    events = begun(tmp_path)
    with events.running():
        events.worker_joins("a")
        for number in range(2000):
            events.shard_begins("a", "square", 1)
            events.progress(Progress("square", number, 2000, 5, 10))
            events.shard_ends("a", "square", 1, 0.001, 1.0)
            events.block(Block(key=f"04-square-{number:05d}", seconds=0.001))
    lines = read_events(tmp_path)
    assert len(lines) < 100
    assert sum(line["blocks"] for line in lines if line["event"] == "block") == 2000


@pytest.mark.parametrize(
    ("error", "event", "reason"),
    [(ValueError("wrong"), "run-fails", "wrong"), (KeyboardInterrupt(), "run-stops", None)],
)
def test_an_ending_is_written_down(
    tmp_path: Path, error: BaseException, event: str, reason: str | None
) -> None:
    with pytest.raises(type(error)), begun(tmp_path).running():
        raise error
    last = read_events(tmp_path)[-1]
    assert (last["event"], last.get("reason")) == (event, reason)
