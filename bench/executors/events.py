"""What happens to workers and shards, told to whoever follows a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Events(Protocol):
    """Told what happens while an executor works."""

    def work_begins(self, stages: Sequence[str], workers: int) -> None:
        """A chain of stages begins; each worker joins anew before its first shard.

        Args:
            stages: their names.
            workers: how many there are, or will soon be.
        """

    def worker_joins(self, worker: str) -> None:
        """A worker begins to work for this run."""

    def worker_lost(self, worker: str, reason: str) -> None:
        """A worker is no more."""

    def worker_leaves(self, worker: str) -> None:
        """A worker goes over to another run."""

    def shard_begins(self, worker: str, stage: str, samples: int) -> None:
        """A worker got samples to take through a stage."""

    def shard_ends(
        self, worker: str, stage: str, samples: int, seconds: float, cost: float
    ) -> None:
        """A worker finished them.

        Args:
            worker: its name.
            stage: the stage's name.
            samples: how many.
            seconds: since it got them.
            cost: of what was done, in forward passes.
        """


class NoEvents:
    """Nobody follows."""

    def work_begins(self, stages: Sequence[str], workers: int) -> None:
        """Do nothing."""

    def worker_joins(self, worker: str) -> None:
        """Do nothing."""

    def worker_lost(self, worker: str, reason: str) -> None:
        """Do nothing."""

    def worker_leaves(self, worker: str) -> None:
        """Do nothing."""

    def shard_begins(self, worker: str, stage: str, samples: int) -> None:
        """Do nothing."""

    def shard_ends(
        self, worker: str, stage: str, samples: int, seconds: float, cost: float
    ) -> None:
        """Do nothing."""
