"""Read PyTorch modules with their hooks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from bench.candidates.object_digest.walk import Readers, Walk

WITHOUT_EFFECT = frozenset(
    {"_state_dict_hooks", "_state_dict_pre_hooks", "_compiled_call_impl", "_is_full_backward_hook"}
    | {"_load_state_dict_pre_hooks", "_load_state_dict_post_hooks", "_non_persistent_buffers_set"}
)
"""What a module has for saving and loading it."""

HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
HOOK_OPTIONS = (
    "_forward_pre_hooks_with_kwargs",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
)
"""Hooks of a module, which are keyed by numbers that count all hooks of the process."""

GRAPH_MODULE = frozenset(
    {"_graph", "_code", "_tracer_cls", "_tracer_extras", "_lineno_map", "meta"}
)


def _network(walk: Walk, value: nn.Module, name: str) -> None:
    """Visit a PyTorch module: its class, tensors, parts, mode, hooks and all else."""
    walk.visit_class(type(value), name)
    state = {key: item for key, item in vars(value).items() if key not in WITHOUT_EFFECT}
    if isinstance(value, torch.fx.GraphModule):
        walk.token("graph", walk.text(value.code))
        state = {key: item for key, item in state.items() if key not in GRAPH_MODULE}
    if type(value).__module__.startswith("torch._dynamo."):  # of torch.compile
        state = {"_modules": state["_modules"]}
    read_hooks(walk, state, name)
    prefix = f"{name}." if name else ""
    for key in sorted(state.keys() - {*HOOKS, *HOOK_OPTIONS} - _computed_before_passes(value)):
        walk.token("attribute", key)
        if key in ("_modules", "_parameters", "_buffers"):
            for part, item in state[key].items():
                walk.token("part", part)
                walk.visit(item, f"{prefix}{part}")
        else:
            walk.visit(state[key], f"{prefix}{key}")
    if type(value).get_extra_state is not nn.Module.get_extra_state:
        walk.visit(value.get_extra_state(), f"{prefix}get_extra_state()")


def read_hooks(walk: Walk, state: Mapping[str, Any], name: str) -> None:
    """Visit the hooks among a module's attributes, in the order they are called in."""
    for key in HOOKS:
        hooks = state.get(key) or {}
        options = [state.get(each) or {} for each in HOOK_OPTIONS]
        for place, (number, hook) in enumerate(hooks.items()):
            walk.token(key, str([number in each for each in options]))
            walk.visit(hook, f"{name}.{key}[{place}]")


def _computed_before_passes(module: nn.Module) -> set[str]:
    """Return the attributes of a module that PyTorch's own hooks compute before each pass.

    Weight norm, spectral norm and pruning keep a weight so. Until the first pass it is what the
    constructor drew, whatever was loaded since, and decides no answer.
    """
    # Recurrent layers hold their weights once more, in a list.
    names = {"_flat_weights"} if isinstance(module, nn.RNNBase) else set()
    for hook in module._forward_pre_hooks.values():
        if type(hook).__module__.startswith("torch.nn.utils."):
            names |= {getattr(hook, each, "") for each in ("name", "_tensor_name")}
    return names


READERS: Readers = ((nn.Module, _network),)
