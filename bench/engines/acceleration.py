"""Faster passes with equal results: folded batch norms, channels_last, lower precision.

Nothing here changes what counts: successes are confirmed on the candidate's own module in float32.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

PRECISIONS = ("float32", "tf32", "bfloat16")

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
    """

    model: Callable[[Tensor], Tensor]
    record: dict[str, str]


def accelerate(module: nn.Module, images: Tensor, precision: str) -> Accelerated:
    """Make a candidate's passes faster where it can take it.

    Args:
        module: in eval mode; it is not changed.
        images: (n, C, H, W) a few images on the module's device, to try things on.
        precision: of the passes.
    """
    record: dict[str, str] = {"precision": precision}
    fast = _independent_copy(module)
    if fast is None:
        record["passes"] = "as they are: the module cannot be copied"
        return Accelerated(_as_it_is(module), record)
    with torch.no_grad():
        expected = module(images.clone()).float()
    fast, record["batch norms folded"] = _folded(fast, images, expected)
    fast, record["channels_last"] = _channels_last(fast, images, expected)
    for parameter in fast.parameters():
        parameter.requires_grad_(False)
    call = _lowered(fast) if precision == "bfloat16" else _as_it_is(fast)
    return Accelerated(call, record)


@contextlib.contextmanager
def tensor_cores(allowed: bool) -> Iterator[None]:
    """Within this context float32 products on a GPU may, or may not, be rounded to TF32."""
    before = (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


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


def _folded(module: nn.Module, images: Tensor, expected: Tensor) -> tuple[nn.Module, str]:
    """The module with each batch norm behind a convolution folded into it."""
    try:
        traced = fx.symbolic_trace(copy.deepcopy(module))
    except Exception as error:  # tracing fails on data-dependent control flow, in many ways
        return module, f"none: not traceable ({type(error).__name__})"
    count = fold_batch_norms(traced)
    if count == 0:
        return module, "none"
    difference = _close(traced, images, expected)
    if difference is None or difference > FOLDING_TOLERANCE:
        return module, f"none: logits would change by {difference}"
    return traced, f"{count}, largest relative logit difference {difference:.1e}"


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
    wrapped = _ChannelsLast(converted)
    difference = _close(wrapped, images, expected)
    if difference is None or difference > FOLDING_TOLERANCE:
        return module, "no: the module does not take it"
    return wrapped, "yes"


class _ChannelsLast(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.module(images.contiguous(memory_format=torch.channels_last))
        return logits


def _lowered(module: nn.Module) -> Callable[[Tensor], Tensor]:
    """Passes in bfloat16, the last linear layer in float32.

    With the last layer in float32 the logits keep a resolution at which losses of neighbouring
    points can be compared.
    """
    lowered = module.to(torch.bfloat16)
    last = None
    for candidate in lowered.modules():
        if isinstance(candidate, nn.Linear):
            last = candidate
    if last is not None:
        last.float()
        last.register_forward_pre_hook(lambda _, inputs: tuple(each.float() for each in inputs))

    def call(images: Tensor) -> Tensor:
        logits: Tensor = lowered(images.to(torch.bfloat16, copy=True))
        return logits.to(images.dtype)

    return call
