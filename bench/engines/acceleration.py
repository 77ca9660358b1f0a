"""Faster passes with equal results: folded batch norms, channels_last, lower precision.

Nothing here changes what counts: successes are confirmed on the candidate's own module in float32.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from bench.candidates.features import FeatureExtractor
from bench.candidates.mix import as_mix
from bench.errors import InputError
from bench.memory import keep_freed_memory
from bench.out_of_memory import is_out_of_memory

PRECISIONS = ("float32", "tf32", "bfloat16")

TRIED_IMAGES = 16
"""Enough to try things on."""

FOLDING_TOLERANCE = 1e-4
"""Largest relative change of a logit by which folding counts as an equal result."""


def default_precision(device: torch.device) -> str:
    """The fastest precision in which the search is as strong as in float32 on a device.

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
    """Make a candidate's passes faster where it can take it; the process keeps freed memory.

    Args:
        module: in eval mode; it is not changed.
        images: (n, C, H, W) a few images on the module's device, to try things on.
        precision: of the passes.

    Raises:
        InputError: the module does not run in bfloat16, which was asked for.
    """
    keep_freed_memory(images.device)
    record: dict[str, str] = {"precision": precision}
    fast = _independent_copy(module)
    if fast is None:
        record["passes"] = "as they are: the module cannot be copied"
        return Accelerated(_as_it_is(module), record, module, module)
    # Compared in float32: rounded to TF32, equal networks with other weights seem to differ.
    with tensor_cores(False):
        with torch.no_grad():
            expected = module(images.clone()).float()
        fast, record["batch norms folded"] = _folded(fast, images, expected)
        fast, record["channels_last"] = _channels_last(fast, images, expected)
    for parameter in fast.parameters():
        parameter.requires_grad_(False)
    if precision == "bfloat16":
        for part in _parts(fast):
            _lower(part)
        _check_lowered(fast, images)
    return Accelerated(_as_it_is(fast), record, fast, fast)


def _as_it_is(module: nn.Module) -> Callable[[Tensor], Tensor]:
    def call(images: Tensor) -> Tensor:
        # A clone, since a candidate may change its input in place.
        logits: Tensor = module(images.clone())
        return logits.to(images.dtype)

    return call


def _independent_copy(module: nn.Module) -> nn.Module | None:
    try:
        return copy.deepcopy(module).eval()
    except Exception:  # third-party modules: hooks and handles that cannot be copied
        return None


def _close(module: nn.Module, images: Tensor, expected: Tensor) -> float | None:
    """Largest relative change of a logit; None if the module no longer runs."""
    try:
        with torch.no_grad():
            logits = module(images.clone()).float()
        difference = float((logits - expected).abs().max() / expected.abs().max().clamp_min(1e-12))
    except Exception:  # third-party modules: whatever they raise, they cannot take the change
        return None
    return difference


def _parts(module: nn.Module) -> list[nn.Module]:
    """What is made faster on its own: a mix's networks, so that it stays a mix, or all at once."""
    mix = as_mix(module)
    return [module] if mix is None else [mix.get_submodule(name) for name in mix.part_names]


def _folded(module: nn.Module, images: Tensor, expected: Tensor) -> tuple[nn.Module, str]:
    """The module with each batch norm behind a convolution folded into it."""
    changed = _Holder(copy.deepcopy(module))
    mix = as_mix(changed.module)
    if mix is None:
        count = _fold_largest(changed, "module")
    else:
        count = sum(
            _fold_largest(mix.get_submodule(parent), name)
            for parent, _, name in (path.rpartition(".") for path in mix.part_names)
        )
    if count == 0:
        return module, "none"
    difference = _close(changed.module, images, expected)
    if difference is None or difference > FOLDING_TOLERANCE:
        return module, f"none: logits would change by {difference}"
    return changed.module, f"{count}, largest relative logit difference {difference:.1e}"


class _Holder(nn.Module):
    """A parent for a module, so that it can be replaced like any submodule."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module


def _fold_largest(parent: nn.Module, name: str) -> int:
    """Fold within a child of `parent`, in place; returns how many batch norms.

    The child is replaced by its trace. One that cannot be traced (data-dependent control flow) is
    kept, and its own children have their turn. A feature extractor is folded whole or not at all:
    folded behind its back, a layer that it listens to would put out something else.
    """
    child = parent.get_submodule(name)
    try:
        traced = fx.symbolic_trace(child)
    except Exception:  # tracing fails in many ways
        if isinstance(child, FeatureExtractor):
            return 0
        return sum(_fold_largest(child, grandchild) for grandchild, _ in child.named_children())
    count = fold_batch_norms(traced)
    if count > 0:
        setattr(parent, name, traced)
    return count


def fold_batch_norms(traced: fx.GraphModule) -> int:
    """Fold batch norms into the convolutions before them, in place; returns how many."""
    modules = dict(traced.named_modules())
    count = 0
    for node in list(traced.graph.nodes):
        if node.op != "call_module" or not isinstance(modules[node.target], nn.BatchNorm2d):
            continue
        (before,) = node.args[:1]
        if not isinstance(before, fx.Node) or before.op != "call_module" or len(before.users) > 1:
            continue
        convolution = modules[str(before.target)]
        used_once = sum(other.target == before.target for other in traced.graph.nodes) == 1
        if not isinstance(convolution, nn.Conv2d) or not used_once:
            continue
        parent, _, name = str(before.target).rpartition(".")
        fused = fuse_conv_bn_eval(convolution, modules[node.target])
        setattr(modules[parent], name, fused)
        modules[str(before.target)] = fused
        node.replace_all_uses_with(before)
        traced.graph.erase_node(node)
        count += 1
    traced.recompile()
    return count


def _channels_last(module: nn.Module, images: Tensor, expected: Tensor) -> tuple[nn.Module, str]:
    """The module with weights in channels_last, where it runs so (a `view` may fail on it)."""
    try:
        converted = copy.deepcopy(module).to(memory_format=torch.channels_last)
    except Exception as error:  # as in _independent_copy
        return module, f"no: {type(error).__name__}"
    for part in _parts(converted):
        part.register_forward_pre_hook(_in_channels_last)
    difference = _close(converted, images, expected)
    if difference is None or difference > FOLDING_TOLERANCE:
        return module, "no: the module does not take it"
    return converted, "yes"


def _in_channels_last(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return _on_tensors(inputs, lambda each: each.contiguous(memory_format=torch.channels_last))


def _lower(module: nn.Module) -> None:
    """Passes in bfloat16, the last linear layer in float32.

    With the last layer in float32 the logits keep a resolution at which losses of neighbouring
    points can be compared.
    """
    module.to(torch.bfloat16)
    module.register_forward_pre_hook(_in_bfloat16)
    linear = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
    for last in linear[-1:]:
        last.float()
        last.register_forward_pre_hook(_in_float32)


def _check_lowered(module: nn.Module, images: Tensor) -> None:
    """Raises an InputError if the lowered module no longer runs, such as one that casts inside."""
    try:
        with torch.no_grad():
            module(images.clone())
    except Exception as error:  # foreign code may raise anything
        if is_out_of_memory(error):
            raise
        raise InputError(
            "expected a candidate whose passes can be made in bfloat16, got "
            f"{type(error).__name__}: {' '.join(str(error).split())[:120]}; "
            "use --precision float32"
        ) from error


def _in_bfloat16(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return _on_tensors(inputs, lambda each: each.to(torch.bfloat16))


def _in_float32(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return _on_tensors(inputs, lambda each: each.float())


def _on_tensors(inputs: tuple[Any, ...], change: Callable[[Tensor], Tensor]) -> tuple[Any, ...]:
    """The inputs with each tensor in them changed, also inside inner tuples."""
    return tuple(
        _on_tensors(each, change) if isinstance(each, tuple) else change(each) for each in inputs
    )
