"""A candidate as bytes, for workers in other processes and on other machines.

Only the driver makes shipments, and only workers open them: they hold pickled objects, by value
where their code is not part of an installed package, so that a submission's own code travels with
it. What workers send back is read without pickle (`parcels.py`).

Tensors go as plain arrays, which Ray keeps once a node; traced modules as PyTorch's own archives.
"""

from __future__ import annotations

import io
import pickle
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import torch
from torch import Tensor, nn

import bench
from bench.errors import EvaluationError, is_in_library, raised
from bench.modules import is_training


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Pickles what cloudpickle does, and what it cannot: modules of PyTorch's own languages."""

    def reducer_override(self, thing: Any) -> Any:
        """Return how an object is made again; see `pickle.Pickler.reducer_override`."""
        if isinstance(thing, torch.jit.ScriptModule):
            buffer = io.BytesIO()
            torch.jit.save(thing, buffer)
            return _scripted, (buffer.getvalue(), is_training(thing))
        if type(thing) is Tensor and _is_plain(thing):
            return _tensor, (_bits(thing), thing.dtype, thing.requires_grad)
        return super().reducer_override(thing)


def pack(
    thing: Any,
    buffers: Callable[[pickle.PickleBuffer], Any] | None = None,
    *,
    own_code: bool = True,
) -> bytes:
    """Return an object as bytes; modules are moved to the CPU by whoever unpacks them.

    Args:
        thing: plain data, modules, functions.
        buffers: takes the data of tensors, which then are not among the bytes.
        own_code: whether code that no package installs is looked for, to travel along.

    Raises:
        EvaluationError: something in it cannot be sent.
    """
    target = io.BytesIO()
    if own_code:
        _send_own_code_along()
    try:
        _Pickler(target, protocol=5, buffer_callback=buffers).dump(thing)
    except Exception as error:  # objects fail to pickle in many ways
        raise EvaluationError(
            f"expected a candidate that can be sent to another process; {raised(error)}. Use "
            "--executor local:1"
        ) from error
    return target.getvalue()


def _send_own_code_along() -> None:
    """Let code travel by value that other machines do not have: what no package installs."""
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if name in ("__main__", "__mp_main__") or not isinstance(file, str):
            continue
        if _is_own_code(file):
            cloudpickle.register_pickle_by_value(module)


@cache  # there are thousands of modules, and an order is packed for every shard
def _is_own_code(file: str) -> bool:
    ours = Path(file).is_relative_to(Path(bench.__file__).parent)
    return not (is_in_library(file) or ours or "<" in file)


def unpack(data: bytes, buffers: Any = None) -> Any:
    """Return the object that `pack` was given.

    Args:
        data: of `pack`; never anything that a worker sent.
        buffers: what `buffers` of `pack` took, in its order.
    """
    return pickle.loads(data, buffers=buffers)


def on_device(task: Any, device: torch.device) -> Any:
    """Return a task with its modules on a device."""
    modules = {
        name: value.to(device) for name, value in vars(task).items() if isinstance(value, nn.Module)
    }
    return replace(task, device=device, **modules)


def _is_plain(tensor: Tensor) -> bool:
    return (
        tensor.layout is torch.strided
        and not tensor.is_quantized
        and not tensor.is_meta
        and not tensor.is_inference()
        and tensor.is_leaf
        and not tensor.dtype.is_complex
        and not tensor._backward_hooks
    )


def _bits(tensor: Tensor) -> Any:
    """Return a tensor's values as an array; of types that NumPy lacks, their bytes."""
    values = tensor.detach().cpu()
    if values.dtype == torch.bfloat16:
        values = values.view(torch.int16)
    return values.contiguous().numpy()


def _tensor(values: Any, dtype: torch.dtype, requires_grad: bool) -> Tensor:
    tensor = torch.from_numpy(np.array(values))  # a copy: shared memory cannot be written
    if dtype == torch.bfloat16:
        tensor = tensor.view(torch.bfloat16)
    return tensor.requires_grad_(requires_grad)


def _scripted(data: bytes, training: bool) -> nn.Module:
    module: nn.Module = torch.jit.load(  # type: ignore[no-untyped-call]
        io.BytesIO(data), map_location="cpu"
    )
    return module.train(training)
