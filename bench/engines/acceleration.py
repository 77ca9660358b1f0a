"""Faster passes with equal results: folded batch norms, channels_last, lower precision.

No result depends on it: successes are confirmed on the candidate's own module in float32.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bench.candidates.mix import as_mix
from bench.engines.equality import Expected
from bench.engines.folding import folded
from bench.errors import FOREIGN_ERRORS, InputError, briefly
from bench.memory.allocator import keep_freed_memory
from bench.memory.out_of_memory import is_out_of_memory
from bench.modules import uncompiled
from bench.precision import tensor_cores

PRECISIONS = ("float32", "tf32", "bfloat16")

TRIED_IMAGES = 16
"""Images on which each step is tried."""


def default_precision(device: torch.device) -> str:
    """Return the fastest precision in which the search is as strong as in float32 on a device.

    A GPU rounds products to TF32, as pyautoattack's convolutions do there by default. Processors
    without matrix units for bfloat16 are no faster in it, and those with them would make results
    depend on the processor; so a CPU searches in float32 unless asked otherwise.
    """
    return "tf32" if device.type == "cuda" else "float32"


@dataclass(frozen=True)
class Accelerated:
    """A candidate as the search calls it.

    Attributes:
        model: images (n, C, H, W) float32 or float64 -> logits (n, K).
        record: what was done to it, for the run's record.
        module: what `model` calls; a mix is still a mix.
        uncompiled: the same before its passes were compiled, if they are.
        compiler_works: whether the run is long enough to compile for, and the compiler could.
    """

    model: Callable[[Tensor], Tensor]
    record: dict[str, str]
    module: nn.Module
    uncompiled: nn.Module
    compiler_works: bool = False


def accelerate(module: nn.Module, images: Tensor, precision: str) -> Accelerated:
    """Make a candidate's passes faster where that works; let the process keep freed memory.

    Each step is tried on its own; where answers or gradients change, or the module fails, it is
    undone, and the record says so.

    Args:
        module: in eval mode; it is not changed.
        images: (n, C, H, W) a few images on the module's device, to try things on.
        precision: of the passes.

    Raises:
        InputError: the module does not run in bfloat16, which was asked for.
    """
    keep_freed_memory(images.device)
    record: dict[str, str] = {"precision": precision}
    # The comparison is in float32: in TF32, equal networks with other weights seem to differ.
    with tensor_cores(False):
        expected, problem = _asked(module, images)
        fast = None
        if expected is not None:
            fast, problem = _copied(module, expected)
        if expected is None or fast is None:
            record["passes"] = f"as they are: {problem}"
            if precision == "bfloat16":
                raise _not_in_bfloat16(problem)
            return Accelerated(called(module), record, module, module)
        problem = _without_gradients_of_weights(fast, expected)
        if problem:
            record["gradients of weights"] = f"computed too: {problem}"
        fast, record["batch norms folded"] = folded(fast, expected)
        fast, record["channels_last"] = _channels_last(fast, expected)
    if precision == "bfloat16":
        _lower_all(fast, images)
    return Accelerated(called(fast), record, fast, fast)


def called(module: nn.Module) -> Callable[[Tensor], Tensor]:
    """Return the calls of a module as attacks make them: of a copy, in the images' dtype."""

    def call(images: Tensor) -> Tensor:
        # A clone, since a candidate may change its input in place.
        logits: Tensor = module(images.clone())
        return logits.to(images.dtype)

    return call


def _asked(module: nn.Module, images: Tensor) -> tuple[Expected | None, str]:
    """Return what copies must answer, or None and why the module cannot be compared with them."""
    try:
        return Expected(module, images), ""
    except FOREIGN_ERRORS as error:  # it may take the images, and not their negatives
        if is_out_of_memory(error):
            raise
        return None, f"the module fails on images or their negatives ({briefly(error)})"


def _copied(module: nn.Module, expected: Expected) -> tuple[nn.Module | None, str]:
    """Return a copy that answers alike, or None and why there is none.

    A module that its author compiled is copied as it was before that.
    """
    try:
        # Without a graph: copies of TorchScript's weights would be computed from the originals.
        with torch.no_grad():
            copied: nn.Module = copy.deepcopy(uncompiled(module))
    except Exception as error:  # third-party modules: hooks and handles that cannot be copied
        return None, f"the module cannot be copied ({briefly(error)})"
    _, problem = expected.compare(copied)
    return (None, f"a copy of the module differs: {problem}") if problem else (copied, "")


def _without_gradients_of_weights(module: nn.Module, expected: Expected) -> str:
    """Turn off gradients of weights, which no attack needs; return why not, or an empty text."""
    changed = [each for each in module.parameters() if each.requires_grad]
    try:
        for parameter in changed:
            parameter.requires_grad_(False)
        _, problem = expected.compare(module)
    except Exception as error:  # weights that are computed from others
        problem = briefly(error)
    if problem:
        for parameter in changed:
            parameter.requires_grad_(True)
    return problem


def _parts(module: nn.Module) -> list[nn.Module]:
    """Return what is made faster on its own: a mix's networks, or all at once."""
    mix = as_mix(module)
    return [module] if mix is None else [mix.get_submodule(name) for name in mix.part_names]


def _channels_last(module: nn.Module, expected: Expected) -> tuple[nn.Module, str]:
    """Return the module in channels_last, where it runs so (a `view` may fail on it)."""
    if not expected.repeats:
        return module, "no: the candidate's answers change by themselves"
    try:
        with torch.no_grad():
            converted = copy.deepcopy(module).to(memory_format=torch.channels_last)
        for part in _parts(converted):
            part.register_forward_pre_hook(_in_channels_last)
    except Exception as error:  # as in _copied
        return module, f"no: {briefly(error)}"
    _, problem = expected.compare(converted)
    return (module, f"no: {problem}") if problem else (converted, "yes")


def _in_channels_last(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return _on_tensors(inputs, lambda each: each.contiguous(memory_format=torch.channels_last))


def _lower(module: nn.Module) -> None:
    """Lower passes to bfloat16, except for the last linear layer, which stays in float32.

    With the last layer in float32 the logits keep a resolution at which losses of neighbouring
    points can be compared.
    """
    module.to(torch.bfloat16)
    module.register_forward_pre_hook(_in_bfloat16)
    linear = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
    for last in linear[-1:]:
        last.float()
        last.register_forward_pre_hook(_in_float32)


def _lower_all(module: nn.Module, images: Tensor) -> None:
    """Lower each part.

    Raises:
        InputError: it no longer runs, such as a part that casts inside.
    """
    try:
        for part in _parts(module):
            _lower(part)
        with torch.no_grad():
            module(images.clone())
    except Exception as error:  # foreign code may raise anything
        if is_out_of_memory(error):
            raise
        raise _not_in_bfloat16(briefly(error)) from error


def _not_in_bfloat16(problem: str) -> InputError:
    return InputError(
        f"expected a candidate whose passes can be made in bfloat16, got {problem}; "
        "use --precision float32"
    )


def _in_bfloat16(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return _on_tensors(inputs, lambda each: each.to(torch.bfloat16))


def _in_float32(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return _on_tensors(inputs, lambda each: each.float())


def _on_tensors(inputs: tuple[Any, ...], change: Callable[[Tensor], Tensor]) -> tuple[Any, ...]:
    """Return the inputs with each tensor in them changed, also inside inner tuples."""
    return tuple(
        _on_tensors(each, change) if isinstance(each, tuple) else change(each) for each in inputs
    )
