"""Batch norms folded into the convolutions before them, wherever that leaves the answers equal."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.overrides import TorchFunctionMode

from bench.candidates.features import FeatureExtractor
from bench.candidates.mix import as_mix
from bench.engines.equality import Expected
from bench.modules import uncompiled

MOST_ATTEMPTS = 24
"""Attempts to fold single parts, if not all can be folded at once: each attempt takes passes."""
Replace = Callable[[nn.Module, str, nn.Module, int], bool]
"""Puts the trace of a child, with a number of batch norms folded, into its place; returns whether
it stays there."""
_NORMS: Mapping[type[nn.Module], type[nn.Module]] = {
    nn.Conv1d: nn.BatchNorm1d,
    nn.Conv2d: nn.BatchNorm2d,
    nn.Conv3d: nn.BatchNorm3d,
}
"""Exactly these classes, not their subclasses, which may do more."""


def folded(module: nn.Module, expected: Expected) -> tuple[nn.Module, str]:
    """Return the module with batch norms folded, and what was done, for the record.

    Args:
        module: may be changed; of a mix each network is folded on its own, so that it stays a mix.
        expected: the answers that it must keep.
    """
    if not expected.repeats:
        return module, "none: the candidate's answers change by themselves"
    holder = _Holder(module)
    mix = as_mix(module)
    places: list[tuple[nn.Module, str]] = [(holder, "module")]
    if mix is not None:
        paths = [path.rpartition(".") for path in mix.part_names]
        places = [(mix.get_submodule(parent), name) for parent, _, name in paths]
    folding = _Folding(holder, expected)
    if not folding.fold_at_once(places):
        folding.fold_one_by_one(places)
    return holder.module, folding.record()


class _Holder(nn.Module):
    """A parent for a module, so that it can be replaced like any submodule."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module


class _Folding:
    """Folds all parts at once, or one after the other, and undoes what changes answers."""

    def __init__(self, holder: _Holder, expected: Expected) -> None:
        self.holder = holder
        self.expected = expected
        self.count = 0
        self.attempts = 0
        self.change = 0.0
        self.problems: list[str] = []

    def fold_at_once(self, places: Sequence[tuple[nn.Module, str]]) -> bool:
        """Fold everything and compare the answers once; return False if all of it was undone."""
        done: list[tuple[nn.Module, str, nn.Module]] = []

        def replace(parent: nn.Module, name: str, traced: nn.Module, count: int) -> bool:
            done.append((parent, name, parent.get_submodule(name)))
            parent._modules[name] = traced
            self.count += count
            return True

        for parent, name in places:
            self._fold(parent, name, replace)
        self.change, problem = self.expected.compare(self.holder.module) if done else (0.0, "")
        if problem:
            for parent, name, child in done:
                parent._modules[name] = child
            self.count, self.change = 0, 0.0
        return not problem

    def fold_one_by_one(self, places: Sequence[tuple[nn.Module, str]]) -> None:
        """Fold part by part, and compare the answers after each."""
        for parent, name in places:
            self._fold(parent, name, self._replace)

    def _fold(self, parent: nn.Module, name: str, replace: Replace) -> None:
        """Fold within a child of `parent`, in place.

        The child is replaced by its trace. One that cannot be traced (data-dependent control flow)
        or replaced is kept, and its own children have their turn. A feature extractor is folded
        whole or not at all: folded behind its back, a layer that it listens to would put out
        something else.
        """
        child = parent._modules[name]
        if child is None or _is_compiled(child):
            return
        traced = None if _listens_inside(child) else _trace(child)
        if traced is not None:
            count = fold_batch_norms(traced)
            if count == 0 or replace(parent, name, traced, count):
                return
        if isinstance(child, FeatureExtractor):
            return
        for grandchild in list(child._modules):
            self._fold(child, grandchild, replace)

    def _replace(self, parent: nn.Module, name: str, traced: nn.Module, count: int) -> bool:
        """Put the trace into the child's place, if the answers stay the same."""
        if self.attempts >= MOST_ATTEMPTS:
            return False
        self.attempts += 1
        child = parent._modules[name]
        parent._modules[name] = traced
        change, problem = self.expected.compare(self.holder.module)
        if problem:
            parent._modules[name] = child
            self.problems.append(problem)
            return False
        self.count += count
        self.change = max(self.change, change)
        return True

    def record(self) -> str:
        """Return what was folded, and what was not, and why."""
        undone = f": {self.problems[-1]}" if self.problems else ""
        if self.count == 0:
            return f"none{undone}"
        done = f"{self.count}, largest relative logit difference {self.change:.1e}"
        return f"{done}; others not{undone}" if undone else done


def _is_compiled(module: nn.Module) -> bool:
    """Return whether a compiled form of the module runs, so that its layers are not asked."""
    return isinstance(module, torch.jit.ScriptModule) or uncompiled(module) is not module


class _RefusedSwitches(TorchFunctionMode):
    """Refuse to turn gradients on or off within this context: a trace would leave it out."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if getattr(func, "__name__", "") == "_set_grad_enabled":
            raise NotImplementedError("a trace cannot turn gradients on or off")
        return func(*args, **(kwargs or {}))


def _trace(module: nn.Module) -> fx.GraphModule | None:
    """Return the module as a graph on copies of its layers; None where it has no such form."""
    try:
        with torch.no_grad():
            copied = copy.deepcopy(module)
        with _RefusedSwitches():
            return fx.symbolic_trace(copied)
    except Exception:  # tracing fails in many ways
        return None


def _listens_inside(module: nn.Module) -> bool:
    """Return whether a hook is on something that a trace takes apart."""
    return any(_has_hooks(part) and bool(part._modules) for part in module.modules()) or (
        _has_hooks(module)
    )


def _has_hooks(module: nn.Module) -> bool:
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )


def fold_batch_norms(traced: fx.GraphModule) -> int:
    """Fold batch norms into the convolutions before them, in place; return how many.

    A pair that cannot be folded (no running statistics, weights that are computed, hooks) is kept.
    """
    modules = dict(traced.named_modules())
    calls = [node.target for node in traced.graph.nodes if node.op == "call_module"]
    count = 0
    for node in list(traced.graph.nodes):
        pair = _pair(node, modules)
        if pair is None:
            continue
        before, convolution, norm = pair
        target = str(before.target)
        if len(before.users) > 1 or calls.count(target) > 1:
            continue
        try:
            fused = fuse_conv_bn_eval(convolution, norm)
        except Exception:  # unusual layers
            continue
        parent, _, name = target.rpartition(".")
        setattr(modules[parent], name, fused)
        modules[target] = fused
        node.replace_all_uses_with(before)
        traced.graph.erase_node(node)
        count += 1
    traced.recompile()
    return count


def _pair(node: fx.Node, modules: Mapping[str, nn.Module]) -> tuple[fx.Node, Any, Any] | None:
    """Return the convolution before a batch norm, if both are PyTorch's own, without hooks."""
    if node.op != "call_module" or len(node.args) != 1 or node.kwargs:
        return None
    before = node.args[0]
    if not isinstance(before, fx.Node) or before.op != "call_module":
        return None
    norm, convolution = modules[str(node.target)], modules[str(before.target)]
    if _NORMS.get(type(convolution)) is not type(norm):
        return None
    unusual = norm.training or norm.running_mean is None or norm.running_var is None
    if unusual or _has_hooks(norm) or _has_hooks(convolution):
        return None
    return before, convolution, norm
