"""Tell out-of-memory errors from other failures, and retry with fewer images."""

from __future__ import annotations

import errno
import gc
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from torch import Tensor

from bench.errors import EvaluationError, raised

Result = TypeVar("Result")

_SIGNS = (
    "out of memory",  # CUDA, HIP, MPS, XPU; CUDA also in an AcceleratorError
    "out_of_device_memory",
    "out_of_host_memory",
    "out_of_resources",
    "memoryallocation",
    "allocate memory",  # DefaultCPUAllocator, and the errno of that name
    "not enough memory",
    "unable to allocate",
    "bad_alloc",
    "bad allocation",
    "alloc_failed",  # cuBLAS, cuDNN, cuSOLVER, cuFFT
    "allocation_failed",
    "resource_exhausted",
    "insufficient_resources",
    # These libraries report a lack of workspace memory in other words too:
    "cublas_status_not_initialized",
    "cudnn_status_not_initialized",
    "cusolver_status_not_initialized",
    "unable to find an engine to execute this computation",
)
"""Lower-case parts of messages. An error that may be about memory counts as one: taken for
anything else, it could end in fewer attacks and a number that is too high."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether a pass failed, or may have failed, because it ran out of memory.

    On a CPU, PyTorch has no error class for it; on a GPU its libraries have their own. The error's
    causes count too, since candidates wrap what their layers raise.
    """
    return any(_says_so(each) for each in _chain(error))


def _says_so(error: BaseException) -> bool:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    text = str(error).lower()
    return any(sign in text for sign in _SIGNS)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield the error, and every error that it was raised from or while handling."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        each = waiting.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        waiting += [each.__cause__, each.__context__]


class ImagesAtOnce:
    """How many images go through a network at once: half as many whenever memory runs out.

        at_once = ImagesAtOnce(128)
        while True:
            with at_once.halving():
                return work(at_once.size)  # repeated with 64, 32, ... while it runs out of memory

    Attributes:
        asked: the number to begin with.
        size: the number that has not run out of memory so far.
    """

    def __init__(self, size: int) -> None:
        if size < 1:
            raise ValueError(f"expected at least 1 image, got {size}")
        self.asked = self.size = size
        self._ran_out = False

    def halving(self) -> ImagesAtOnce:
        """Return a context that ends quietly, with half the size, if its work runs out of memory.

        Raises:
            EvaluationError: when it ends, if a single image does not fit.
        """
        return self

    def __enter__(self) -> ImagesAtOnce:
        """Free what the failed work has left, now that nothing refers to its error."""
        if self._ran_out:
            self._ran_out = False
            gc.collect()
            torch.cuda.empty_cache()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: object
    ) -> bool:
        """Halve the size after an out-of-memory error; let any other error pass."""
        # Third-party code may wrap the error in any other.
        if not isinstance(error, Exception) or not is_out_of_memory(error):
            return False
        if self.size == 1:
            raise EvaluationError(
                "out of memory: a pass of a single image does not fit on the device: "
                f"{raised(error)}"
            ) from error
        self.size //= 2
        self._ran_out = True
        return True

    def in_parts(self, rows: Tensor, work: Callable[[Tensor], Result]) -> list[Result]:
        """Return the results of work on consecutive parts of `rows` (n,), each as large as fits.

        Args:
            rows: any numbers; none for none.
            work: given a part (m,), m >= 1; it may be repeated on fewer.
        """
        results: list[Result] = []
        done = 0
        while done < len(rows):
            part = rows[done : done + self.size]
            with self.halving():
                results.append(work(part))
                done += len(part)
        return results


def with_as_many_as_fit(count: int, work: Callable[[int], Result]) -> Result:
    """Do a piece of work on `count` images, and on half as many whenever it runs out of memory.

    Args:
        count: at least 1.
        work: given the number of images.

    Raises:
        EvaluationError: a single image does not fit.
        Exception: whatever else the work raises.
    """
    at_once = ImagesAtOnce(count)
    while True:
        with at_once.halving():
            return work(at_once.size)
