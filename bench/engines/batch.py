"""The batch of a search: one place for each work item, filled and emptied item by item."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from bench.attacks import State, insert, overwrite, select
from bench.engines.agenda import Item
from bench.memory.transfer import send


@dataclass
class Batch:
    """The batch: a state with one row for each place, and the items in them; places fill from 0."""

    capacity: int
    state: State | None = None
    items: list[Item] = field(default_factory=list)

    @property
    def free(self) -> int:
        """How many places are empty."""
        return self.capacity - len(self.items)

    def add(self, state: State, items: list[Item]) -> None:
        """Put items, whose rows are those of `state`, into the first empty places."""
        count = len(self.items)
        if self.state is None:
            spare = torch.arange(self.capacity) % len(items)
            self.state = select(state, send(spare, state.labels.device))
        overwrite(select(self.state, slice(count, count + len(items))), state)
        self.items += items

    def view(self) -> State:
        """Return the rows of the filled places; changing it changes the batch."""
        assert self.state is not None
        return select(self.state, slice(0, len(self.items)))

    def remove(self, leaving: list[int]) -> State:
        """Take the items in places `leaving` (ascending) out; the last ones move into the gaps."""
        assert self.state is not None
        device = self.state.labels.device
        taken = select(self.state, send(torch.tensor(leaving), device))
        kept = len(self.items) - len(leaving)
        gaps = [place for place in leaving if place < kept]
        gone = set(leaving)
        movers = [place for place in range(kept, len(self.items)) if place not in gone]
        if gaps:
            moved = select(self.state, send(torch.tensor(movers), device))
            insert(self.state, send(torch.tensor(gaps), device), moved)
            for gap, mover in zip(gaps, movers, strict=True):
                self.items[gap] = self.items[mover]
        del self.items[kept:]
        return taken
