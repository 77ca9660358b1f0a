"""What a run's events say of its workers."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from bench.store.events import Event, is_moment

TIME_OF_RATES = timedelta(minutes=10)
"""A worker's rates are those of the shards that it ended in so long before the newest one."""
MOST_LOSSES = 3
"""So many of the newest losses are told."""


@dataclass(frozen=True)
class WorkerActivity:
    """A worker.

    Attributes:
        name: its name.
        stage, samples: of the shard that it has; "" and 0: it waits for one.
        seconds: since it got that shard, or since it waits.
        shards: that it finished.
        samples_per_second, passes_per_second: lately; None while it has finished nothing.
    """

    name: str
    stage: str
    samples: int
    seconds: float
    shards: int
    samples_per_second: float | None
    passes_per_second: float | None


@dataclass(frozen=True)
class Activity:
    """What happens in a run since it was last begun, as far as its events say.

    Attributes:
        host, process: of the driver; "" and 0: not known.
        ending: "run-ends", "run-fails" or "run-stops"; "": no line says that it ended.
        reason: why it failed.
        seconds: from the last beginning to the time asked for.
        seconds_left: upper estimate of the time to the end; None if unknown.
        samples_per_second, passes_per_second: of all workers, as the last progress says.
        workers: that joined and were not lost, by name.
        workers_lost, shards_lost: since the last beginning.
        losses: the newest of them in words.
    """

    host: str
    process: int
    ending: str
    reason: str
    seconds: float
    seconds_left: float | None
    samples_per_second: float | None
    passes_per_second: float | None
    workers: tuple[WorkerActivity, ...]
    workers_lost: int
    shards_lost: int
    losses: tuple[str, ...]


def moment_of(event: Event) -> datetime:
    """Return the time of an event."""
    return datetime.fromisoformat(event["time"])


def activity_of(events: Sequence[Event], now: datetime) -> Activity | None:
    """Return what the events of a run say at a time; None: there are none.

    Args:
        events: of `bench.store.events.read_events`; other releases' may lack or add facts.
        now: with a time zone, not before the last event.
    """
    if not events:
        return None
    reading = _Reading(moment_of(events[0]))
    for event in events:
        if event.get("event") == "run-begins":
            reading = _Reading(moment_of(event))
        reading.take(event)
    return reading.at(now)


class _Ended(NamedTuple):
    """What one line says of shards that ended."""

    at: datetime
    samples: float
    seconds: float
    passes: float


@dataclass
class _Worker:
    changed: datetime
    stage: str = ""
    samples: int = 0
    shards: int = 0
    recent: deque[_Ended] = field(default_factory=deque)

    def ended(self, at: datetime, event: Event) -> None:
        self.changed, self.stage, self.samples = at, "", 0
        self.shards += int(_number(event, "shards"))
        seconds = _number(event, "seconds")
        passes = _number(event, "passes_per_second") * seconds
        self.recent.append(_Ended(at, _number(event, "samples"), seconds, passes))
        while at - self.recent[0].at > TIME_OF_RATES:
            self.recent.popleft()

    def at(self, name: str, now: datetime) -> WorkerActivity:
        seconds = sum(each.seconds for each in self.recent)
        samples = sum(each.samples for each in self.recent)
        passes = sum(each.passes for each in self.recent)
        return WorkerActivity(
            name=name,
            stage=self.stage,
            samples=self.samples,
            seconds=(now - self.changed).total_seconds(),
            shards=self.shards,
            samples_per_second=samples / seconds if seconds > 0 else None,
            passes_per_second=passes / seconds if seconds > 0 else None,
        )


class _Reading:
    """Events, one after the other, and what they come to."""

    def __init__(self, began: datetime) -> None:
        self._driver: Event = {}
        self._began = began
        self._end: Event = {}
        self._progress: tuple[datetime, Event] | None = None
        self._workers: dict[str, _Worker] = {}
        self._lost = [0, 0]
        self._losses: deque[str] = deque(maxlen=MOST_LOSSES)

    def take(self, event: Event) -> None:
        at, worker = moment_of(event), str(event.get("worker", ""))
        match event.get("event"):
            case "run-begins":
                self._driver = event
            case "continues":
                self._continue(event)
            case "run-ends" | "run-fails" | "run-stops":
                self._end = event
            case "stage":
                self._progress = at, event
            case "work-begins":
                self._workers = {}
            case "worker-joins":
                self._worker(worker, at)
            case "worker-leaves":
                self._workers.pop(worker, None)
            case "worker-lost":
                self._lose(worker, event)
            case "shard-begins":
                each = self._worker(worker, at)
                each.changed, each.stage = at, str(event.get("stage", ""))
                each.samples = int(_number(event, "samples"))
            case "shard-ends":
                self._worker(worker, at).ended(at, event)

    def _worker(self, name: str, at: datetime) -> _Worker:
        return self._workers.setdefault(name, _Worker(at))

    def _lose(self, worker: str, event: Event) -> None:
        self._workers.pop(worker, None)
        has_shard = bool(event.get("stage"))
        self._lost = [self._lost[0] + 1, self._lost[1] + has_shard]
        self._losses.append(f"{worker}: {event.get('reason', '')}")

    def _continue(self, event: Event) -> None:
        """Take the first line of a further file, which sums up lines that may be gone."""
        self._driver = event
        began = event.get("began")
        self._began = moment_of({"time": began} if is_moment(began) else event)
        self._lost = [int(_number(event, name)) for name in ("workers_lost", "shards_lost")]
        names = event.get("workers")
        for name in names if isinstance(names, list) else ():
            self._worker(str(name), moment_of(event))

    def at(self, now: datetime) -> Activity:
        noted, progress = self._progress or (now, {})
        left = _optional(progress, "seconds_left")
        if left is not None:
            left = max(0.0, left - (now - noted).total_seconds())
        return Activity(
            host=str(self._driver.get("host", "")),
            process=int(_number(self._driver, "process")),
            ending=str(self._end.get("event", "")),
            reason=str(self._end.get("reason", "")),
            seconds=(now - self._began).total_seconds(),
            seconds_left=left,
            samples_per_second=_optional(progress, "samples_per_second"),
            passes_per_second=_optional(progress, "passes_per_second"),
            workers=tuple(each.at(name, now) for name, each in self._workers.items()),
            workers_lost=self._lost[0],
            shards_lost=self._lost[1],
            losses=tuple(self._losses),
        )


def _optional(event: Event, name: str) -> float | None:
    value: Any = event.get(name)
    if not isinstance(value, int | float) or not abs(value) < sys.maxsize:  # NaN is not
        return None
    return float(value)


def _number(event: Event, name: str) -> float:
    return _optional(event, name) or 0.0
