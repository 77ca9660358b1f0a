"""What a worker of a crew does with what it is sent: the same in every kind of process."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from bench.candidates.recomputation import differentiable_checkpoints
from bench.errors import FOREIGN_ERRORS, BenchError, InputError, raised
from bench.executors.crew import Failed, Finished, Order, Question
from bench.executors.parcels import pack_blocks, with_samples
from bench.executors.stage import Doing, Stage
from bench.executors.worker import WorkerHere
from bench.precision import tensor_cores
from bench.store.records import Block

_DONE, _INPUT_IS_AT_FAULT, _FAILED = b"+", b"?", b"!"
"""The first byte of an answer."""


def answer_of(worker: str, answer: bytes) -> Finished | Failed:
    """Return what a hand's answer says of the worker with this name."""
    kind, rest = answer[:1], answer[1:]
    if kind == _DONE:
        return Finished(worker, rest)
    return Failed(worker, kind == _INPUT_IS_AT_FAULT, rest.decode())


def failure(text: str) -> bytes:
    """Return the answer of a worker that could not even begin."""
    return _FAILED + text.encode()


class Hand:
    """Does shards on one device, for one task and one chain of stages at a time."""

    def __init__(self, worker: WorkerHere | None = None) -> None:
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

    def do(self, work: Order | Question) -> bytes:
        """Do a shard, or answer a question; see `answer_of`."""
        try:
            with tensor_cores(False), differentiable_checkpoints():
                return _DONE + self._data(work)
        except BenchError as error:
            kind = _INPUT_IS_AT_FAULT if isinstance(error, InputError) else _FAILED
            return kind + str(error).encode()
        except FOREIGN_ERRORS as error:
            return failure(f"failed: {raised(error)}")

    def _data(self, work: Order | Question) -> bytes:
        if isinstance(work, Order):
            return self._blocks(work)
        assert self._worker is not None
        return json.dumps(work.question(self._worker.prepared(work.setup))).encode()

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
