"""A cluster on a virtual clock: workers, a driver, and the scheduling that real runs have.

Nothing is computed and nobody waits. Shards are cut by `bench.executors.schedule`, and shared out
between candidates in the order of `bench.executors.need`. A shard's time follows from a fit to
shards that were recorded:

    seconds = beside + unit x max(cost of its samples, cost of one x images that fill / its images)

times a random factor near 1. The second term is what fewer images than fill a device take.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count

from bench.executors.need import in_order_of_need
from bench.executors.schedule import Schedule, Shard, StageShape


@dataclass(frozen=True)
class Leg:
    """A stage, and what becomes of samples in it.

    Attributes:
        cost: of a sample that stands, in forward passes.
        items: images of a sample in one pass.
        stands: the share of those that enter which stand.
    """

    cost: float
    items: int
    stands: float


@dataclass(frozen=True)
class Load:
    """A candidate's run.

    Attributes:
        samples: how many.
        clean, attacks: the stages; workers prepare for the attacks.
        unit: seconds of a unit of cost on a device that is full.
        fills: images that fill a device.
        batch: images in one pass.
        beside: seconds of a shard beside its samples.
        spread: standard deviation of the logarithm of a shard's random factor.
        take: seconds in which a worker loads the candidate.
        prepare: seconds in which it makes passes faster, and checks that they are equal.
        before: seconds in which the driver loads and inspects the candidate.
        after: seconds in which the driver sums it up.
    """

    samples: int
    clean: Leg
    attacks: tuple[Leg, ...]
    unit: float
    fills: int
    batch: int
    beside: float
    spread: float
    take: float
    prepare: float
    before: float
    after: float


@dataclass(frozen=True)
class Cluster:
    """Who works.

    Attributes:
        workers: how many.
        at_once: candidates that share them.
        driver: seconds in which the driver packs a shard, and unpacks and stores what came of it.
    """

    workers: int
    at_once: int = 1
    driver: float = 0.0


@dataclass
class Outcome:
    """What came of it.

    Attributes:
        seconds: from the beginning until the last candidate is summed up.
        alone: seconds that one worker would have taken for all of it, in one process.
        loading: seconds of all workers in which they loaded and prepared candidates.
        working: seconds of all workers in which they had shards.
        shards: how many there were.
        driver: seconds in which the driver was busy with shards.
    """

    workers: int
    seconds: float = 0.0
    alone: float = 0.0
    loading: float = 0.0
    working: float = 0.0
    shards: int = 0
    driver: float = 0.0

    @property
    def efficiency(self) -> float:
        """Speedup over one worker alone, divided by the number of workers."""
        return self.alone / (self.workers * self.seconds)

    @property
    def driver_share(self) -> float:
        """Share of the time in which the driver was busy with shards."""
        return self.driver / self.seconds


@dataclass
class _Run:
    """A candidate under way: its clean stage, then one worker that prepares, then the attacks."""

    load: Load
    draw: random.Random
    schedule: Schedule = field(init=False)
    attacks_begun: bool = False
    asked: bool = False
    standing: list[int] = field(default_factory=list)
    workers: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.schedule = Schedule([self._shape(self.load.clean)])
        self.schedule.enter(0, range(self.load.samples))

    def begin_attacks(self) -> None:
        self.attacks_begun = True
        self.schedule = Schedule([self._shape(leg) for leg in self.load.attacks])
        self.schedule.enter(0, self.standing)

    def work(self, shard: Shard) -> tuple[float, float, list[int]]:
        """Return a shard's seconds on a worker that is prepared.

        Returns:
            them; those that its samples would take in full batches; what stands afterwards.
        """
        leg = self.load.attacks[shard.stage] if self.attacks_begun else self.load.clean
        left, cost = [], 0.0
        for row in shard.rows:
            stands = self.draw.random() < leg.stands
            # The attack that breaks a sample ends anywhere, but rarely late.
            cost += leg.cost * (
                1.0 if stands or not self.attacks_begun else self.draw.random() ** 2
            )
            if stands:
                left.append(row)
        images = len(shard.rows) * leg.items
        least = leg.cost / leg.items * self.load.fills if images < self.load.fills else 0.0
        factor = math.exp(self.draw.gauss(0.0, self.load.spread))
        seconds = (self.load.beside + self.load.unit * max(cost, least)) * factor
        return seconds, self.load.unit * cost * factor, left

    def _shape(self, leg: Leg) -> StageShape:
        fills = math.ceil(self.load.fills / leg.items) if self.attacks_begun else 1
        return StageShape(leg.cost, self.load.batch, None, fills)


@dataclass
class _Worker:
    knows: int | None = None
    prepared: bool = False


def simulate(loads: Sequence[Load], cluster: Cluster, seed: int) -> Outcome:
    """Return what came of running candidates on a cluster."""
    return _Simulation(loads, cluster, seed).run()


class _Simulation:
    def __init__(self, loads: Sequence[Load], cluster: Cluster, seed: int) -> None:
        self._loads, self._cluster = loads, cluster
        self._runs = [_Run(load, random.Random(f"{seed}/{n}")) for n, load in enumerate(loads)]
        self._next = 0
        self._open: list[int] = []
        self._workers = [_Worker() for _ in range(cluster.workers)]
        self._free = list(range(cluster.workers))
        self._events: list[tuple[float, int, str, tuple[object, ...]]] = []
        self._numbers = count()
        self._now = self._driver_free = 0.0
        self._outcome = Outcome(cluster.workers)

    def run(self) -> Outcome:
        """Go from event to event until everything is summed up."""
        for _ in range(min(self._cluster.at_once, len(self._loads))):
            self._begin_next()
        while self._events:
            self._now, _, kind, what = heapq.heappop(self._events)
            getattr(self, f"_{kind}")(*what)
            self._share_out()
        outcome = self._outcome
        outcome.seconds = self._now
        for load in self._loads:
            outcome.alone += load.before + load.take + load.prepare + load.after
        return outcome

    def _at(self, time: float, kind: str, *what: object) -> None:
        heapq.heappush(self._events, (time, next(self._numbers), kind, what))

    def _begin_next(self) -> None:
        if self._next < len(self._loads):
            self._at(self._now + self._loads[self._next].before, "opened", self._next)
            self._next += 1

    def _opened(self, number: int) -> None:
        self._open.append(number)

    def _closed(self, number: int) -> None:
        self._begin_next()

    def _driven(self, share: float) -> float:
        """Return when the driver has done its part, after what it does before."""
        self._driver_free = max(self._now, self._driver_free) + share * self._cluster.driver
        self._outcome.driver += share * self._cluster.driver
        return self._driver_free

    def _share_out(self) -> None:
        # What one worker does not get, none gets.
        while self._free and self._give(self._free[0]):
            del self._free[0]

    def _give(self, number: int) -> bool:
        """Give a worker something to do; return whether there is anything."""
        worker = self._workers[number]
        shared = len(self._open) > 1
        if shared and any(self._order(number, place, 1, True) for place in self._wanted(worker)):
            return True
        everyone = self._cluster.workers
        return any(self._order(number, place, everyone, False) for place in self._wanted(worker))

    def _order(self, number: int, place: int, workers: int, patient: bool) -> bool:
        """Give a worker a shard, or what it asks first; return whether there was any."""
        worker, run = self._workers[number], self._runs[place]
        if run.schedule.is_done and not run.attacks_begun and not run.asked:
            run.asked = True  # one worker answers what the engine asks before the attacks
            seconds = self._load_on(worker, place, prepare=True)
            self._at(self._now + seconds, "answered", number, place)
            run.workers.add(number)
            return True
        shard = run.schedule.next_shard(workers, patient=patient)
        if shard is None:
            return False
        loading = self._load_on(worker, place, prepare=run.attacks_begun)
        seconds, alone, standing = run.work(shard)
        self._outcome.alone += alone
        self._outcome.working += seconds
        self._outcome.shards += 1
        ends = self._driven(0.5) + loading + seconds
        self._at(ends, "returned", number, place, shard, standing, seconds)
        run.workers.add(number)
        return True

    def _wanted(self, worker: _Worker) -> Iterator[int]:
        own = self._open.index(worker.knows) if worker.knows in self._open else None
        schedules = [self._runs[place].schedule for place in self._open]
        counts = [len(self._runs[place].workers) for place in self._open]
        for each in in_order_of_need(schedules, counts, own):
            yield self._open[each]

    def _load_on(self, worker: _Worker, place: int, *, prepare: bool) -> float:
        seconds = 0.0
        if worker.knows != place:
            seconds += self._loads[place].take
            worker.knows, worker.prepared = place, False
        if prepare and not worker.prepared:
            seconds += self._loads[place].prepare
            worker.prepared = True
        self._outcome.loading += seconds
        return seconds

    def _answered(self, number: int, place: int) -> None:
        self._leave(number, place)
        self._runs[place].begin_attacks()

    def _returned(
        self, number: int, place: int, shard: Shard, standing: list[int], seconds: float
    ) -> None:
        self._leave(number, place)
        at = self._driven(0.5)
        run = self._runs[place]
        run.schedule.finished(shard, len(standing), seconds)
        if not run.attacks_begun:
            run.standing += standing
        elif shard.stage + 1 < len(run.load.attacks):
            run.schedule.enter(shard.stage + 1, standing)
        if run.attacks_begun and run.schedule.is_done:
            self._open.remove(place)
            self._at(at + run.load.after, "closed", place)

    def _leave(self, number: int, place: int) -> None:
        self._runs[place].workers.discard(number)
        self._free.append(number)
