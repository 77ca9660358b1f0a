"""Float32 products as exact as float32 is, or rounded to TF32, whatever the process was set to.

PyTorch has two interfaces to one process-wide setting: `allow_tf32` with
`set_float32_matmul_precision`, and, from 2.9 on, `fp32_precision` of each backend and operation.
Reading the older one raises where the newer one was used. On processors with matrix units the
setting may round to bfloat16. So whatever computes a number that counts states the precision.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch

_ALL = (("generic", "all"), ("cuda", "all"), ("mkldnn", "all"))
"""Settings that others inherit from, the outermost first."""
_OPERATIONS = tuple(
    (backend, operation)
    for backend in ("cuda", "mkldnn")
    for operation in ("matmul", "conv", "rnn")
)
# Only these functions set the backends' own settings: in PyTorch 2.14,
# `torch.backends.mkldnn.fp32_precision = ...` changes those of every backend.
_get: Callable[[str, str], str] | None = getattr(torch._C, "_get_fp32_precision_getter", None)
_set: Callable[[str, str, str], None] | None = getattr(torch._C, "_set_fp32_precision_setter", None)


@contextlib.contextmanager
def tensor_cores(allowed: bool) -> Iterator[None]:
    """Allow or forbid, within this context, rounding float32 products to TF32 on a GPU.

    On a processor they are never rounded. Afterwards all settings are as they were, whichever
    interface set them.
    """
    if _is_set(allowed):
        yield
        return
    inherited = _take(_ALL)
    own = _take(_OPERATIONS)
    matmul, convolutions = torch.get_float32_matmul_precision(), _convolutions_allow_tf32()
    _set_both(allowed)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(matmul)
        torch.backends.cudnn.allow_tf32 = convolutions
        for (backend, operation), value in {**own, **inherited}.items():
            if _set is not None:
                _set(backend, operation, value)


def _is_set(allowed: bool) -> bool:
    """Return whether both interfaces say so already, as inside another such context."""
    try:
        legacy = (
            torch.backends.cuda.matmul.allow_tf32,
            torch.backends.cudnn.allow_tf32,
            torch.get_float32_matmul_precision(),
        )
    except RuntimeError:  # the interfaces disagree
        return False
    if legacy != (allowed, allowed, "high" if allowed else "highest"):
        return False
    if _get is None:
        return True
    wanted = {"cuda": "tf32" if allowed else "ieee", "mkldnn": "ieee"}
    return all(_get(*each) in (wanted[each[0]], "none") for each in _OPERATIONS)


def _take(settings: tuple[tuple[str, str], ...]) -> dict[tuple[str, str], str]:
    """Read settings of the newer interface, and leave each one unset.

    A setting that is unset answers with the one that it inherits from: so the outer ones are to be
    taken first. Empty where PyTorch has no such interface.
    """
    found: dict[tuple[str, str], str] = {}
    if _get is None or _set is None:
        return found
    for backend, operation in settings:
        found[backend, operation] = _get(backend, operation)
        _set(backend, operation, "none")
    return found


def _convolutions_allow_tf32() -> bool:
    """Return what the older interface's `cudnn.allow_tf32` was set to.

    It is read while the newer settings are unset: they must agree with it, or reading it raises.
    """
    try:
        return torch.backends.cudnn.allow_tf32
    except RuntimeError:
        return True


def _set_both(allowed: bool) -> None:
    """Set both interfaces so that they agree; PyTorch's compiler reads the older one."""
    torch.set_float32_matmul_precision("highest")
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed
