"""Event files: torn lines, limited size, and what readers make of whatever is in them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.store.activity import activity_of, moment_of
from bench.store.events import EARLIER_EVENTS, EVENTS, EventLog, read_events

START = datetime(2026, 1, 1, tzinfo=UTC)


def at(after: float, event: str, /, **facts: Any) -> dict[str, Any]:
    return {"time": (START + timedelta(seconds=after)).isoformat(), "event": event, **facts}


@pytest.mark.parametrize("left", [1, 5, 40])
def test_a_torn_line_is_left_out_and_the_next_one_is_whole(tmp_path: Path, left: int) -> None:
    log = EventLog(tmp_path)
    log.write("run-begins", host="here")
    log.write("block", key="00-clean-00000")
    path = tmp_path / EVENTS
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.index(b"\n") + 1 + left])  # killed within the second line
    assert [each["event"] for each in read_events(tmp_path)] == ["run-begins"]
    log.write("run-begins", host="again")
    assert [each.get("host") for each in read_events(tmp_path)] == ["here", "again"]


def test_two_files_of_limited_size_are_kept(tmp_path: Path) -> None:
    log = EventLog(tmp_path, lambda: {"workers_lost": 3}, most_bytes=1000)
    for number in range(200):
        log.write("block", key=number)
    for name in (EVENTS, EARLIER_EVENTS):
        assert (tmp_path / name).stat().st_size < 1200
    assert {each.name for each in tmp_path.iterdir()} == {EVENTS, EARLIER_EVENTS}
    kept = read_events(tmp_path)
    assert (kept[0]["event"], kept[0]["workers_lost"]) == ("continues", 3)
    keys = [each["key"] for each in kept if each["event"] == "block"]
    assert keys == list(range(keys[0], 200))


def test_a_log_that_cannot_be_written_ends_nothing(tmp_path: Path) -> None:
    EventLog(tmp_path / "not there").write("run-begins")
    assert read_events(tmp_path / "not there") == []
    assert activity_of([], START) is None


def test_workers_are_as_their_lines_say() -> None:
    events = [
        at(0, "run-begins", host="node", process=7),
        at(1, "work-begins", stages=["apgd-ce"], workers=3),
        *(at(2, "worker-joins", worker=name) for name in "abc"),
        *(at(3, "shard-begins", worker=name, stage="apgd-ce", samples=10) for name in "abc"),
        at(5, "shard-ends", worker="a", shards=1, samples=10, seconds=2.0, passes_per_second=50.0),
        at(6, "worker-lost", worker="b", reason="its node left", stage="apgd-ce", samples=10),
        at(6, "worker-lost", worker="d", reason="it was idle", stage="", samples=0),
        at(7, "shard-begins", worker="a", stage="square", samples=4),
        at(8, "shard-ends", worker="c", shards=2, samples=20, seconds=5.0, passes_per_second=8.0),
        at(10, "stage", stage="apgd-ce", done=30, total=40, seconds_left=60.0, workers=2),
    ]
    found = activity_of(events, START + timedelta(seconds=20))
    assert found is not None
    assert (found.host, found.process, found.ending, found.seconds) == ("node", 7, "", 20.0)
    assert found.seconds_left == 50.0
    a, c = found.workers
    assert (a.name, a.stage, a.samples, a.seconds, a.shards) == ("a", "square", 4, 13.0, 1)
    assert (a.samples_per_second, a.passes_per_second) == (5.0, 50.0)
    assert (c.name, c.stage, c.shards, c.samples_per_second) == ("c", "", 2, 4.0)
    assert (found.workers_lost, found.shards_lost) == (2, 1)
    assert found.losses == ("b: its node left", "d: it was idle")
    # A new beginning forgets all of it; so does a file's first line, but for what it sums up.
    again = activity_of([*events, at(30, "run-begins")], START + timedelta(seconds=31))
    assert again is not None
    assert (again.workers, again.workers_lost, again.seconds) == ((), 0, 1.0)
    head = at(30, "continues", began=events[0]["time"], workers=["a"], workers_lost=2)
    further = activity_of([head], START + timedelta(seconds=31))
    assert further is not None
    assert ([each.name for each in further.workers], further.workers_lost) == (["a"], 2)
    assert further.seconds == 31.0


VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just([1, "x"])
FACTS = ("worker", "stage", "samples", "seconds", "shards", "passes_per_second", "process")
KINDS = ("run-begins", "continues", "worker-joins", "worker-lost", "shard-begins", "shard-ends")
LINES = st.builds(
    lambda kind, facts, began: {**at(1, kind), **facts, **({} if began is None else began)},
    st.sampled_from((*KINDS, "stage", "run-ends", "run-fails", "work-begins", "other")),
    st.dictionaries(st.sampled_from((*FACTS, "workers", "seconds_left", "reason")), VALUES),
    st.none() | st.fixed_dictionaries({"began": VALUES | st.just("2026-01-01T00:00:00")}),
)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(LINES), st.binary())
def test_whatever_lines_hold_they_are_read(
    tmp_path_factory: pytest.TempPathFactory, lines: list[dict[str, Any]], rest: bytes
) -> None:
    folder = tmp_path_factory.mktemp("run")
    text = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    (folder / EVENTS).write_bytes(text + rest)
    found = read_events(folder)
    assert len(found) >= len(lines)
    if found:
        activity_of(found, max(map(moment_of, found)))
