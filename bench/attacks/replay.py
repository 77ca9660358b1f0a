"""Many small operations on a GPU as one launch: recorded once as a CUDA graph, then replayed.

A step's arithmetic is some hundred operations on small tensors. Each costs the host some
microseconds to launch, which is longer than a GPU takes to do it. A graph launches all of them at
once. It works on fixed addresses, so a state is changed in place, and what a pass of the model
returns is copied to where the graph reads it.

A graph is trusted once a replay gave what the operations themselves give, bit for bit. Nothing here
makes the host wait.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from bench.attacks.state import tensors_of
from bench.errors import briefly

CALLS_BEFORE_RECORDING = 8
"""Calls on the same tensors after which more are expected; a recording costs about four calls."""

T = TypeVar("T")


@dataclass(frozen=True)
class _Recording(Generic[T]):
    """A recorded call.

    Attributes:
        key: of the calls that it stands for.
        graph: replays the operations.
        inputs: where it reads what is passed.
        result: what the call returns, overwritten by each replay.
        agrees: () bool, in the host's memory: whether a replay gave the right values.
        known: recorded after `agrees`; it says whether `agrees` was written.
    """

    key: Any
    graph: torch.cuda.CUDAGraph
    inputs: list[Tensor]
    result: T
    agrees: Tensor
    known: torch.cuda.Event


class Replayed(Generic[T]):
    """A function that is called again and again on the same tensors, which it may change in place.

    Its first argument holds tensors that stay where they are, such as a state, and none that a
    backward pass still needs: a recording writes them back as they were. The others are tensors of
    the same shapes in each call. The function asks for no tensor's values, and returns tensors or a
    container of them, which the next call may overwrite. On a processor it is called as it is.

    Attributes:
        problem: why nothing is replayed on a GPU; empty if there is no problem.
    """

    def __init__(self, function: Callable[..., T]) -> None:
        self._function = function
        self._key: Any = None
        self._calls = 0
        self._recording: _Recording[T] | None = None
        self.problem = ""

    def __call__(self, kept: Any, *passed: Tensor) -> T:
        """Call the function, or replay an earlier call on the same tensors.

        Args:
            kept: a tensor, or a dataclass or tuple of such, in the same memory as before or not.
            passed: tensors in any memory.
        """
        fixed = list(tensors_of(kept))
        if self.problem or fixed[0].device.type != "cuda":
            return self._function(kept, *passed)
        key = (
            [(each.data_ptr(), each.shape) for each in fixed],
            [(each.shape, each.dtype) for each in passed],
        )
        recording = self._recording
        if recording is not None and recording.key == key and recording.known.query():  # type: ignore[no-untyped-call]
            if not bool(recording.agrees):
                self._give_up("a replay gave other values")
                return self._function(kept, *passed)
            if passed:
                torch._foreach_copy_(recording.inputs, list(passed))
            recording.graph.replay()
            return recording.result
        self._calls = self._calls + 1 if key == self._key else 1
        self._key = key
        if self._calls <= CALLS_BEFORE_RECORDING or (recording and recording.key == key):
            return self._function(kept, *passed)
        return self._record(key, fixed, kept, passed)

    def forget(self) -> None:
        """Give back the memory that a recording takes; later calls may be recorded anew."""
        self._recording, self._key = None, None

    def _record(self, key: Any, fixed: list[Tensor], kept: Any, passed: tuple[Tensor, ...]) -> T:
        """Make a call, and record one like it."""
        before: list[Tensor] = []
        try:
            before = [each.clone() for each in fixed]
            made = self._function(kept, *(each.clone() for each in passed))
            expected = [each.clone() for each in (*fixed, *tensors_of(made))]
            _copy_all(fixed, before)
            inputs = [each.clone() for each in passed]
            # In the memory of the recording before, which is not replayed again.
            pool = self._recording.graph.pool() if self._recording else None
            graph, result = _recorded(lambda: self._function(kept, *inputs), fixed[0].device, pool)
            _copy_all(inputs, passed)
            graph.replay()
            known, agrees = _told(_same_bits([*fixed, *tensors_of(result)], expected))
        except Exception as error:  # of a driver, of an operation that no graph can hold, of memory
            if before:
                _copy_all(fixed, before)
            self._give_up(briefly(error))
            return self._function(kept, *passed)
        self._recording = _Recording(key, graph, inputs, result, agrees, known)
        _copy_all(fixed, expected[: len(fixed)])
        return made

    def _give_up(self, problem: str) -> None:
        self.problem = problem
        self._recording = None


def _recorded(
    call: Callable[[], T], device: torch.device, pool: Any
) -> tuple[torch.cuda.CUDAGraph, T]:
    """Return a graph of what a call launches, and its result, whose values a replay writes."""
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        # Other threads may do what they like in the meantime.
        graph.capture_begin(pool=pool, capture_error_mode="thread_local")
        try:
            result = call()
        except BaseException:
            with contextlib.suppress(RuntimeError):
                graph.capture_end()
            raise
        graph.capture_end()
    torch.cuda.current_stream(device).wait_stream(stream)
    return graph, result


def _told(value: Tensor) -> tuple[torch.cuda.Event, Tensor]:
    """Return what says when a value () of the device is in the host's memory, and where there."""
    host = torch.empty((), dtype=value.dtype).pin_memory()
    host.copy_(value, non_blocking=True)
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record(torch.cuda.current_stream(value.device))
    return event, host


def _copy_all(into: Sequence[Tensor], source: Sequence[Tensor]) -> None:
    for each, values in zip(into, source, strict=True):
        each.copy_(values)


def _same_bits(found: list[Tensor], expected: list[Tensor]) -> Tensor:
    """Return () bool: whether all values are equal, where NaN equals NaN."""
    equal = [
        ((one == other) | ((one != one) & (other != other))).all()
        for one, other in zip(found, expected, strict=True)
    ]
    return torch.stack(equal).all()
