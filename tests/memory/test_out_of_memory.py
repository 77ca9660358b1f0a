"""Out-of-memory errors are known in all their clothes, and nothing else is taken for one."""

from __future__ import annotations

import errno

import pytest
import torch

from bench.memory.out_of_memory import is_out_of_memory, with_as_many_as_fit

ACCELERATOR_ERROR: type[Exception] = getattr(torch, "AcceleratorError", RuntimeError)
try:
    ACCELERATOR_ERROR("")
except TypeError:
    ACCELERATOR_ERROR = RuntimeError

OUT_OF_MEMORY: list[Exception] = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
    MemoryError(),
    ACCELERATOR_ERROR("CUDA error: out of memory\nCUDA kernel errors might be reported later"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    RuntimeError("FIND was unable to find an engine to execute this computation"),
    RuntimeError("GET was unable to find an engine to execute this computation"),
    RuntimeError(
        "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate"
    ),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."),
    RuntimeError("std::bad_alloc"),
    RuntimeError("MPS backend out of memory (MPS allocated: 8.00 GB)"),
    RuntimeError("XPU out of memory. Tried to allocate 1 GiB"),
    RuntimeError(
        "Native API failed. Native API returns: 39 (UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY)"
    ),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: str(error)[:40])
def test_an_out_of_memory_error_is_known(error: Exception) -> None:
    assert is_out_of_memory(error)


def test_an_error_that_was_raised_from_one_is_one() -> None:
    def wrapping(*, explicit: bool) -> Exception:
        try:
            try:
                raise torch.OutOfMemoryError("CUDA out of memory")
            except RuntimeError as error:
                raise ValueError("layer 3 failed") from (error if explicit else None)
        except ValueError as wrapped:
            return wrapped

    assert is_out_of_memory(wrapping(explicit=True))
    assert is_out_of_memory(wrapping(explicit=False))


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied (1x2 and 3x4)"),
        RuntimeError("the derivative for 'fake' is not implemented"),
        RuntimeError("CUDA error: device-side assert triggered"),
        ValueError("expected a memory format"),
    ],
)
def test_another_error_is_none(error: Exception) -> None:
    assert not is_out_of_memory(error)


def test_fewer_images_are_tried_until_they_fit() -> None:
    tried = []

    def work(count: int) -> int:
        tried.append(count)
        if count > 3:
            raise ValueError("wrapped") from RuntimeError("CUDA error: out of memory")
        return count

    assert with_as_many_as_fit(16, work) == 2
    assert tried == [16, 8, 4, 2]
