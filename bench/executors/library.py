"""What workers in other processes must know, as bytes: each task and each chain is packed once."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from bench.executors.crew import Brief


@dataclass(frozen=True)
class Packed:
    """A brief as workers get it.

    Attributes:
        task, chain: numbers, by which workers say which they know.
        task_parts, chain_parts: what the numbers stand for.
    """

    task: int
    task_parts: Sequence[Any]
    chain: int
    chain_parts: Sequence[Any]


class Library:
    """Keeps packed briefs; any thread may use it.

    A task is kept as long as its module lives, since the next brief of a run is about the same one.

    Args:
        pack_task, pack_chain: return what workers get.
    """

    def __init__(
        self,
        pack_task: Callable[[Any], Sequence[Any]],
        pack_chain: Callable[[Any], Sequence[Any]],
    ) -> None:
        self._pack_task = pack_task
        self._pack_chain = pack_chain
        self._lock = threading.Lock()
        self._last = 0
        self._tasks: dict[int, tuple[int, Sequence[Any]]] = {}
        """By the identity of the module."""
        self._briefs: dict[int, Packed] = {}
        """By the identity of the brief."""

    def add(self, brief: Brief) -> None:
        """Pack a brief.

        Raises:
            EvaluationError: something in it cannot be sent.
        """
        module: nn.Module = brief.task.module
        known = self._tasks.get(id(module))
        parts = self._pack_task(brief.task) if known is None else known[1]
        chain_parts = self._pack_chain(brief.chain)
        with self._lock:
            if known is None:
                self._last += 1
                known = self._tasks[id(module)] = self._last, parts
                weakref.finalize(module, self._tasks.pop, id(module), None)
            self._last += 1
            self._briefs[id(brief)] = Packed(*known, self._last, chain_parts)

    def packed(self, brief: Brief) -> Packed:
        """Return a brief that was added."""
        return self._briefs[id(brief)]

    def remove(self, brief: Brief) -> None:
        """Forget a brief."""
        self._briefs.pop(id(brief), None)
