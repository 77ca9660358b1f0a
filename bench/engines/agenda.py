"""What a search tries next: which round of which sample, and when a sample is done.

A round is one restart of one target; a sample's rounds are tried in their order until one breaks
it. A sample that was begun goes on before another one begins, so that from early on there is
something to keep of a long search. Where there are fewer samples than places, later rounds are
started ahead of their turn; the sample is broken by the first round, in their order, that succeeds,
so that the result is the same as if they had waited.

Nothing here knows of models, images or batches.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple


@dataclass
class Sample:
    """Where a sample stands in an attack.

    Attributes:
        row: its place within the task.
        started: how many of its rounds were started.
        searching: the rounds that were started and have not ended.
        in_batch: how many of those are in the batch; the others wait to be confirmed.
        steps: steps of each round that ended.
        broke: the first round, in their order, that broke the sample; None: none so far.
    """

    row: int
    started: int = 0
    searching: set[int] = field(default_factory=set)
    in_batch: int = 0
    steps: dict[int, int] = field(default_factory=dict)
    broke: int | None = None


class Item(NamedTuple):
    """One round of one sample."""

    sample: Sample
    round: int

    @property
    def superseded(self) -> bool:
        """Whether an earlier round broke the sample, so that this one no longer matters."""
        return self.sample.broke is not None and self.round > self.sample.broke


class Agenda:
    """The samples of an attack: those to begin, those under way, and those that are done.

    Attributes:
        done: samples that are done and were not taken yet, in the order in which they ended.
        rounds_ended: the number of ended rounds of samples that are not done.
    """

    def __init__(self, rows: Iterable[int], rounds: int) -> None:
        """Make an agenda.

        Args:
            rows: the samples, in the order in which they begin.
            rounds: how many each has.
        """
        self._rounds = rounds
        self._ready = deque(Sample(row) for row in rows)
        self._in_batch: dict[int, Sample] = {}
        self.done: list[Sample] = []
        self.rounds_ended = 0

    def start(self, most: int) -> list[Item]:
        """Return the next items to search, at most `most`; none if none is left.

        Rounds whose turn it is come first, then rounds ahead of their turn, the earliest first.
        """
        items: list[Item] = []
        while self._ready and len(items) < most:
            items.append(self._next_round(self._ready.popleft()))
        if len(items) < most:
            items += self._ahead_of_turn(most - len(items))
        return items

    def wait(self, items: Iterable[Item]) -> None:
        """Take items out of the batch: their results have yet to be confirmed."""
        for sample, _ in items:
            sample.in_batch -= 1
            if not sample.in_batch:
                del self._in_batch[sample.row]

    def resume(self, items: Iterable[Item]) -> None:
        """Put items that waited back into the batch: their success was not confirmed."""
        for sample, _ in items:
            self._enter(sample)

    def end(self, item: Item, steps: int, *, broken: bool) -> bool:
        """End a round that waited, and return whether it breaks its sample.

        Args:
            item: the round.
            steps: the number of steps that it took.
            broken: whether it succeeded; that counts if no earlier round did.
        """
        sample = item.sample
        counts = broken and not item.superseded
        sample.steps[item.round] = steps
        sample.searching.discard(item.round)
        self.rounds_ended += 1
        if counts:
            sample.broke = item.round
        if all(Item(sample, each).superseded for each in sample.searching):
            self._go_on_or_finish(sample)
        return counts

    def take_done(self) -> list[Sample]:
        """Return the samples that are done since the last call."""
        taken, self.done = self.done, []
        return taken

    def _go_on_or_finish(self, sample: Sample) -> None:
        """Get the next round ready, or count the sample as done once all its rounds have ended."""
        if sample.broke is None and sample.started < self._rounds:
            self._ready.appendleft(sample)
        elif not sample.searching:
            self.done.append(sample)
            self.rounds_ended -= len(sample.steps)

    def _next_round(self, sample: Sample) -> Item:
        item = Item(sample, sample.started)
        sample.searching.add(item.round)
        sample.started += 1
        self._enter(sample)
        return item

    def _enter(self, sample: Sample) -> None:
        sample.in_batch += 1
        self._in_batch[sample.row] = sample

    def _ahead_of_turn(self, most: int) -> list[Item]:
        """Start later rounds of samples that are in the batch, the earliest rounds first."""
        candidates = [
            (sample.started, row)
            for row, sample in self._in_batch.items()
            if sample.broke is None and sample.started < self._rounds
        ]
        heapq.heapify(candidates)
        items: list[Item] = []
        while candidates and len(items) < most:
            sample = self._in_batch[candidates[0][1]]
            items.append(self._next_round(sample))
            if sample.started < self._rounds:
                heapq.heapreplace(candidates, (sample.started, sample.row))
            else:
                heapq.heappop(candidates)
        return items
