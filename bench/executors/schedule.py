"""Which samples a free worker gets next: plain arithmetic on rows, without models or processes.

Samples wait in front of the stages of a chain. A worker that is free pulls a shard: some of the
samples that wait for one stage. The earliest stage goes first, since its samples have the longest
way before them; so workers never wait for each other between two stages.

Shards shrink towards the end, as in guided self-scheduling (Polychronopoulos and Kuck 1987): each
is a share of what waits, within bounds on its time, so that the last ones end together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

SHARES = 2
"""A shard has one part in so many times the workers of what waits for its stage."""
MOST_SECONDS = 30.0
"""A shard takes no longer, so that no more is lost with a worker."""
LEAST_SECONDS = 2.0
"""A shard takes no less where that is possible: each has its costs beside the work."""
MOST_TRIES = 3
"""A shard that so many workers died of is at fault itself."""


@dataclass(frozen=True)
class StageShape:
    """What scheduling knows of a stage.

    Attributes:
        cost: of a sample that it leaves standing, at most.
        full: samples that fill a worker's batch.
        exactly, filled_by: see `bench.executors.stage.Stage`.
    """

    cost: float
    full: int
    exactly: int | None = None
    filled_by: int = 1


@dataclass
class Shard:
    """Samples on their way through one stage.

    Attributes:
        number: its own.
        stage: number of the stage.
        rows: places of the samples within the task.
        tries: workers that were lost with it.
    """

    number: int
    stage: int
    rows: tuple[int, ...]
    tries: int = 0


@dataclass
class Schedule:
    """The samples of one chain: waiting, or in shards that workers have.

    Attributes:
        stages: of the chain.
    """

    stages: Sequence[StageShape]
    _waiting: list[list[int]] = field(init=False)
    _out: dict[int, Shard] = field(default_factory=dict)
    _again: list[Shard] = field(default_factory=list)
    _seconds: float = 0.0
    _cost: float = 0.0
    _made: int = 0
    _tails: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._waiting = [[] for _ in self.stages]

    def enter(self, stage: int, rows: Sequence[int]) -> None:
        """Let samples wait for a stage."""
        self._waiting[stage] += rows

    @property
    def is_done(self) -> bool:
        """Whether nothing waits and no worker has a shard."""
        return not (self._out or self._again or any(self._waiting))

    @property
    def waiting(self) -> int:
        """Samples that no worker has."""
        return sum(map(len, self._waiting)) + sum(len(shard.rows) for shard in self._again)

    @property
    def cost_waiting(self) -> float:
        """Cost of what waits, and of the stages behind it; as if every sample survived them all."""
        cost = left = 0.0
        for stage in reversed(range(len(self.stages))):
            left += self.stages[stage].cost
            again = sum(len(each.rows) for each in self._again if each.stage == stage)
            if waiting := len(self._waiting[stage]) + again:
                cost += left * waiting
        return cost

    def next_shard(self, workers: int, *, patient: bool = False) -> Shard | None:
        """Return what a free worker gets, or None if nothing waits.

        Args:
            workers: how many there are for these samples, at least 1.
            patient: whether samples that do not keep a device busy wait for those that are still
                to come to their stage; for a worker that has something else to do.
        """
        if self._again:
            shard = self._again.pop()
            self._out[shard.number] = shard
            return shard
        for stage, rows in enumerate(self._waiting):
            if rows and self._may_begin(stage) and not (patient and self._more_come(stage)):
                size = self._size(stage, workers)
                shard = Shard(self._made, stage, tuple(rows[:size]))
                del rows[:size]
                self._made += 1
                self._out[shard.number] = shard
                return shard
        return None

    def finished(self, shard: Shard, standing: int, seconds: float) -> None:
        """Note that a worker finished a shard, and left so many samples standing."""
        del self._out[shard.number]
        self._seconds += seconds
        # What a stage broke cost less than what survives; half of it is a fair guess.
        broken = len(shard.rows) - standing
        self._cost += self.stages[shard.stage].cost * (standing + broken / 2)

    def lost(self, shard: Shard, *, began: bool = True) -> bool:
        """Let a shard wait again whose worker was lost; return False if that happened too often.

        Args:
            shard: what the worker had.
            began: whether it may have begun it; if not, the shard is not at fault.
        """
        del self._out[shard.number]
        shard.tries += began
        if shard.tries >= MOST_TRIES:
            return False
        self._again.append(shard)
        return True

    def _may_begin(self, stage: int) -> bool:
        """Return whether shards of a stage can be cut: all must be there where a number is set."""
        if self.stages[stage].exactly is None:
            return True
        before = self._waiting[:stage]
        return not any(before) and all(each.stage >= stage for each in self._out.values())

    def _more_come(self, stage: int) -> bool:
        """Return whether too few samples wait for a stage, and others are on their way to it."""
        few = len(self._waiting[stage]) < self.stages[stage].filled_by
        return few and self._coming(stage) > 0

    def _coming(self, stage: int) -> int:
        """Return how many samples may still come to a stage."""
        shards = (*self._out.values(), *self._again)
        under_way = sum(len(each.rows) for each in shards if each.stage < stage)
        return sum(map(len, self._waiting[:stage])) + under_way

    def _size(self, stage: int, workers: int) -> int:
        shape, waiting = self.stages[stage], len(self._waiting[stage])
        if shape.exactly is not None:
            return shape.exactly or waiting
        expected = waiting + self._coming(stage)
        if expected <= shape.filled_by * workers:
            # Smaller shards would take as long as larger ones: each worker gets one more.
            size = max(self._tails.get(stage, 0), math.ceil(expected / workers))
            self._tails[stage] = size
            return min(size, waiting)
        self._tails.pop(stage, None)
        size = max(math.ceil(expected / (SHARES * workers)), shape.filled_by)
        each = self.seconds_a_sample(stage)
        if each is None:
            return min(size, shape.full, waiting)
        most = max(1, int(MOST_SECONDS / each))
        least = max(min(math.ceil(LEAST_SECONDS / each), shape.full), shape.filled_by)
        size = max(min(size, most), least)
        # What would be left for a last shard, but would not fill a batch, goes with this one.
        return waiting if waiting - size < shape.filled_by else size

    @property
    def seconds_a_unit(self) -> float | None:
        """How long a unit of cost takes a worker; None while nothing is known."""
        if not self._cost or not self._seconds:
            return None
        return self._seconds / self._cost

    def seconds_a_sample(self, stage: int) -> float | None:
        """Return how long a sample that survives takes in a stage; None while nothing is known."""
        unit = self.seconds_a_unit
        return None if unit is None else self.stages[stage].cost * unit
