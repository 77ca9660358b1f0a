"""Read tensors, NumPy's arrays and random generators."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.candidates.object_digest.walk import Readers, Undigestible, Walk


def _array(walk: Walk, value: np.ndarray[Any, Any] | np.generic, name: str) -> None:
    array = np.asarray(value)
    walk.token("array", f"{type(value).__name__} {array.dtype.descr} {array.shape}")
    if array.dtype.hasobject:
        walk.items("objects", array.ravel().tolist(), name)
    else:
        walk.token("values", np.ascontiguousarray(array).reshape(-1).view(np.uint8))
    if type(value) is not np.ndarray and isinstance(value, np.ndarray):
        walk.visit_class(type(value), name)
        if not isinstance(value, np.memmap):
            walk.attributes(value, name)


def _tensor(walk: Walk, value: Tensor, name: str) -> None:
    kind = type(value)
    walk.attributes(value, name)
    if kind not in (Tensor, nn.Parameter):
        walk.visit_class(kind, name)
        if hasattr(value, "__tensor_flatten__"):
            names, context = value.__tensor_flatten__()
            walk.visit(context, f"{name}.context")
            for each in names:
                walk.visit(getattr(value, each), f"{name}.{each}")
            return
        value = value.as_subclass(Tensor)
    tensor = value.detach()
    walk.token("tensor", f"{tensor.dtype} {tuple(tensor.shape)} {tensor.layout}")
    for part in _parts(tensor):
        walk.token("values", _raw(part))


def _generator(walk: Walk, value: torch.Generator, name: str) -> None:
    walk.token("generator", str(value.device))
    walk.visit(value.get_state(), f"{name}.state")


def _parts(tensor: Tensor) -> list[Tensor]:
    """Return strided tensors that hold the values of a tensor of any kind."""
    if tensor.is_meta:
        raise Undigestible("a tensor on the device meta has no values")
    if tensor.is_nested:
        return [part for each in tensor.unbind() for part in _parts(each)]
    if tensor.layout == torch.sparse_coo:
        tensor = tensor.coalesce()
        return [tensor.indices(), tensor.values()]
    if tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        return [tensor.crow_indices(), tensor.col_indices(), tensor.values()]
    if tensor.layout in (torch.sparse_csc, torch.sparse_bsc):
        return [tensor.ccol_indices(), tensor.row_indices(), tensor.values()]
    if tensor.layout != torch.strided:
        return [tensor.to_dense()]
    if not tensor.is_quantized:
        return [tensor]
    if tensor.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric):
        scale = torch.tensor([tensor.q_scale(), tensor.q_zero_point()], dtype=torch.float64)
        return [tensor.int_repr(), scale]
    axis = torch.tensor(tensor.q_per_channel_axis())
    scales, zero_points = tensor.q_per_channel_scales(), tensor.q_per_channel_zero_points()
    return [tensor.int_repr(), scales, zero_points, axis]


def _raw(tensor: Tensor) -> Any:
    """Return the bytes of a strided tensor, without a conversion of its numbers."""
    values = tensor.cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
    return values.view(torch.uint8).numpy() if values.numel() else b""


READERS: Readers = (
    (Tensor, _tensor),
    ((np.ndarray, np.generic), _array),
    (torch.Generator, _generator),
)
