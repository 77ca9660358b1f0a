"""How far a chain of stages is, and how long the rest will take."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence

from bench.executors.progress import Progress
from bench.executors.stage import Doing, Stage

SECONDS_OF_RATES = 60.0
"""Rates are those of so long."""


class Tally:
    """Adds up what workers do, stage by stage.

    The time left is an upper estimate: as if every sample so far survived all stages.
    """

    def __init__(
        self, chain: Sequence[Stage], examples: int, report: Callable[[Progress], None]
    ) -> None:
        """Begin.

        Args:
            chain: the stages.
            examples: all samples of the task.
            report: told how far the work is.
        """
        self._chain = chain
        self._examples = examples
        self._report = report
        self._total = [0] * len(chain)
        self._finished = [0] * len(chain)
        self._lost = [0] * len(chain)
        self._cost = 0.0
        self._begun: tuple[float, float] | None = None
        self._recent: deque[tuple[float, float, float]] = deque()

    def enter(self, stage: int, samples: int) -> None:
        """Note that samples enter a stage."""
        self._total[stage] += samples

    def add(self, stage: int, finished: int, lost: int, cost: float) -> None:
        """Note what was finished in a stage."""
        self._finished[stage] += finished
        self._lost[stage] += lost
        self._cost += cost

    def show(self, stage: int, under_way: Doing | None = None, workers: int = 1) -> None:
        """Report a stage.

        Args:
            stage: its number.
            under_way: work that is not added yet.
            workers: how many are at work.
        """
        doing = under_way or Doing(0, 0, 0.0)
        now, cost = time.monotonic(), self._cost + doing.cost
        if self._begun is None and cost > 0:
            self._begun = now, cost  # the work before this report waited for a compiler too
        finished = self._finished[stage] + doing.finished
        done = finished + doing.under_way
        lost = self._lost[stage] + doing.lost
        each = self._chain[stage]
        # Samples may still be on their way here: what stands is all that began but the lost.
        standing = self._total[0] - sum(self._lost) - doing.lost
        right = finished - lost if each.counts_up else standing
        in_all = sum(self._finished) + doing.finished + doing.under_way
        samples, passes = self._rates(now, in_all, cost)
        self._report(
            Progress(
                each.name,
                int(done),
                self._total[stage],
                max(right, 0),
                max(finished, 1) if each.counts_up else self._examples,
                self._seconds_left(stage, done, lost, now, cost),
                workers,
                samples,
                passes,
            )
        )

    def _rates(self, now: float, done: float, cost: float) -> tuple[float | None, float | None]:
        """Return samples and passes a second, from what was reported in the last minute."""
        recent = self._recent
        recent.append((now, done, cost))
        # One report that is older remains, so that long pauses between two count.
        while len(recent) > 2 and now - recent[1][0] >= SECONDS_OF_RATES:
            recent.popleft()
        began, first, first_cost = recent[0]
        if now <= began or cost <= first_cost:
            return None, None
        return (done - first) / (now - began), (cost - first_cost) / (now - began)

    def _seconds_left(
        self, stage: int, done: float, lost: int, now: float, cost: float
    ) -> float | None:
        if self._begun is None or cost <= self._begun[1]:
            return None
        seconds_a_unit = (now - self._begun[0]) / (cost - self._begun[1])
        left = 0.0
        entering = 0.0
        for number, each in enumerate(self._chain):
            here = done if number == stage else self._finished[number]
            broken = lost if number == stage else self._lost[number]
            left += (max(self._total[number] - here, 0.0) + entering) * each.cost
            # What has not left a stage yet may enter the next one.
            next_total = self._total[number + 1] if number + 1 < len(self._chain) else 0
            entering = max(self._total[number] + entering - broken - next_total, 0.0)
        return left * seconds_a_unit
