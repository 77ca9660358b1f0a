"""What a worker of a crew does with what it is sent: the same in every kind of process."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from bench.candidates.recomputation import differentiable_checkpoints
from bench.errors import FOREIGN_ERRORS, BenchError, InputError, raised
from bench.executors.crew import Failed, Finished, Order
from bench.executors.parcels import pack_blocks, with_samples
from bench.executors.stage import Doing, Setup, Stage
from bench.executors.worker import WorkerHere
from bench.precision import tensor_cores
from bench.store.records import Block


class Hand:
    """Does orders on one device, for one task and one chain of stages at a time."""

    def __init__(self, name: str, worker: WorkerHere | None = None) -> None:
        self._name = name
        self._worker = worker
        self._chain: Sequence[Stage] = ()

    def take(self, task: Any, share: int) -> None:
        """Work for another task from now on; what was prepared for the last one is dropped."""
        self._worker = WorkerHere(task, share)

    def share_cores(self, share: int) -> None:
        """Note that so many workers share the machine, and that nothing is to be compiled."""
        if self._worker is not None:
            self._worker.share, self._worker.may_compile = share, False

    def follow(self, chain: Sequence[Stage]) -> None:
        """Take orders of this chain from now on."""
        self._chain = chain

    def do(self, order: Order) -> Finished | Failed:
        """Return what came of an order."""
        try:
            with tensor_cores(False), differentiable_checkpoints():
                return Finished(self._name, self._blocks(order))
        except BenchError as error:
            return Failed(self._name, isinstance(error, InputError), str(error))
        except FOREIGN_ERRORS as error:
            return Failed(self._name, False, f"failed: {raised(error)}")

    def answer(self, setup: Setup, question: Callable[[Any], Any]) -> bytes:
        """Return "+" and the answer about what a setup made as JSON, or a letter and a text."""
        assert self._worker is not None
        try:
            with tensor_cores(False), differentiable_checkpoints():
                return b"+" + json.dumps(question(self._worker.prepared(setup))).encode()
        except BenchError as error:
            return (b"?" if isinstance(error, InputError) else b"!") + str(error).encode()
        except FOREIGN_ERRORS as error:
            return f"!failed: {raised(error)}".encode()

    def _blocks(self, order: Order) -> bytes:
        assert self._worker is not None
        stage = self._chain[order.stage]
        part = with_samples(self._worker.task, order.samples)
        cost = 0.0

        def told(doing: Doing) -> None:
            nonlocal cost
            cost = doing.cost

        work = stage.work if order.work is None else order.work
        blocks: list[Block] = list(self._worker.blocks(work, stage.setup, part, told))
        return pack_blocks(blocks, {"cost": cost})
