"""Every sample passes every stage once, in order, whatever happens to workers."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from bench.executors.need import in_order_of_need
from bench.executors.schedule import Schedule, Shard, StageShape

shapes = st.builds(
    StageShape,
    cost=st.floats(1, 1000),
    full=st.integers(1, 64),
    exactly=st.sampled_from([None, None, 0, 5]),
    filled_by=st.integers(1, 20),
)


@given(
    st.lists(shapes, min_size=1, max_size=4),
    st.integers(1, 200),
    st.integers(1, 9),
    st.integers(0, 10**6),
)
@settings(deadline=None, max_examples=150)
def test_each_sample_passes_each_stage_once(
    stages: list[StageShape], samples: int, workers: int, seed: int
) -> None:
    draw = random.Random(seed)
    schedule = Schedule(stages)
    schedule.enter(0, range(samples))
    breaks_at = {row: draw.randint(0, 2 * len(stages)) for row in range(samples)}
    passed: dict[int, list[int]] = {row: [] for row in range(samples)}
    busy: list[Shard] = []
    lost: dict[int, int] = {}
    while not schedule.is_done:
        patient = draw.random() < 0.5
        while len(busy) < workers:
            shard = schedule.next_shard(workers, patient=patient and bool(busy))
            if shard is None:
                break
            assert shard.rows
            busy.append(shard)
        assert busy, "somebody has work while anything is left"
        shard = busy.pop(draw.randrange(len(busy)))
        if draw.random() < 0.2 and lost.get(shard.number, 0) < 2:
            lost[shard.number] = lost.get(shard.number, 0) + 1
            assert schedule.lost(shard)
            continue
        exactly = stages[shard.stage].exactly
        assert not exactly or len(shard.rows) <= exactly
        for row in shard.rows:
            passed[row].append(shard.stage)
        standing = [row for row in shard.rows if breaks_at[row] != shard.stage]
        schedule.finished(shard, len(standing), 0.1 * len(shard.rows))
        if shard.stage + 1 < len(stages):
            schedule.enter(shard.stage + 1, standing)
    for row, ways in passed.items():
        last = min(breaks_at[row], len(stages) - 1)
        assert ways == list(range(last + 1))


def test_a_shard_that_workers_die_of_is_given_up() -> None:
    schedule = Schedule([StageShape(1.0, 8)])
    schedule.enter(0, range(4))
    tries = 0
    while (shard := schedule.next_shard(1)) is not None and schedule.lost(shard):
        tries += 1
    assert tries == 2


def test_what_belongs_to_a_batch_size_is_cut_in_order() -> None:
    schedule = Schedule([StageShape(1.0, 8, exactly=5)])
    schedule.enter(0, range(12))
    shards = []
    while (shard := schedule.next_shard(3)) is not None:
        shards.append(shard.rows)
    assert shards == [(0, 1, 2, 3, 4), (5, 6, 7, 8, 9), (10, 11)]


def test_what_does_not_fill_a_device_waits_for_the_rest_or_goes_with_it() -> None:
    schedule = Schedule([StageShape(1.0, 8, filled_by=4), StageShape(1.0, 8, filled_by=4)])
    schedule.enter(0, range(11))
    first = schedule.next_shard(1, patient=True)
    assert first is not None
    schedule.finished(first, len(first.rows), 60.0 * len(first.rows))
    schedule.enter(1, first.rows[:3])
    last = schedule.next_shard(1, patient=True)
    assert last is not None
    assert len(first.rows + last.rows) == 11
    assert schedule.next_shard(1, patient=True) is None
    few = schedule.next_shard(1)
    assert few is not None
    assert few.stage == 1


def test_a_worker_stays_with_its_candidate_then_goes_where_most_waits_for_each() -> None:
    schedules = [Schedule([StageShape(1.0, 8)]) for _ in range(3)]
    for schedule, samples in zip(schedules, (10, 100, 100), strict=True):
        schedule.enter(0, range(samples))
    assert list(in_order_of_need(schedules, [1, 4, 3], own=0)) == [0, 2, 1]
    assert list(in_order_of_need(schedules, [0, 49, 9], own=None)) == [0, 2, 1]
