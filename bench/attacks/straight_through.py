"""Gradients through operations without one: straight-through estimation on unchanged models.

A. Athalye, N. Carlini, D. Wagner, "Obfuscated Gradients Give a False Sense of Security", 2018
(arXiv 1802.00420): a component that is flat, or cut out of the graph, is run as it is, and in the
backward pass replaced by one that is close to it and differentiable (BPDA). Where the author of a
candidate names no stand-in, the identity serves for roundings, hard thresholds and cuts in the
graph, and a clipped identity for signs.

A PyTorch function mode exchanges these operations while the model runs, wherever in its code they
are called; what the model computes stays the same, bit for bit.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from bench.attacks.attack import Model
from bench.attacks.hard_thresholds import snapped_values
from bench.modules import uncompiled

ROUNDINGS = frozenset({"round", "floor", "ceil", "trunc", "fix"})
SIGNS = frozenset({"sign", "sgn"})
CUTS = frozenset({"detach", "detach_"})
_OPERATORS_IN_PLACE = frozenset(
    f"__{name}__"
    for name in ("setitem", "iadd", "isub", "imul", "itruediv", "ifloordiv", "iand", "ior", "ixor")
)
_MARK = "bench: operation that stops a gradient"


class _Replaced(torch.autograd.Function):
    """The second argument, with the gradient going to the first."""

    @staticmethod
    def forward(ctx: Any, near: Tensor, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return gradients[0], None


class StraightThrough(TorchFunctionMode):
    """Let operations that are flat or cut the graph pass gradients on, within this context.

    Each of them leaves a mark on its node of the graph, by which `flat_operations` tells those that
    stand between an image and a logit from those that work on weights or on statistics.
    """

    def __init__(self) -> None:
        super().__init__()
        self._turned_off = 0
        """How many `no_grad` contexts of the model are open."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Replace an operation that would stop a gradient; run any other as it is."""
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name == "_set_grad_enabled":
            # The caller decided that gradients are wanted; the model may not turn them off.
            self._turned_off = max(0, self._turned_off + (-1 if args[0] else 1))
            return None
        if not self._turned_off:
            return self._replaced(func, name, args, kwargs)
        if _writes_into_weights(name, args, kwargs):
            with torch.no_grad():
                return func(*args, **kwargs)
        before = {each.grad_fn for each in _tensors((args, kwargs))}
        result = self._replaced(func, name, args, kwargs)
        for tensor in _tensors(result):
            if tensor.grad_fn not in before:
                _mark(tensor, "no_grad")
        return result

    def _replaced(self, func: Callable[..., Any], name: str, args: Any, kwargs: Any) -> Any:
        if name == "__get__":
            return self._attribute(func, args, kwargs)
        snapped = snapped_values(name, args, kwargs)
        if snapped is not None:
            with torch._C.DisableTorchFunctionSubclass():
                value = cast(Tensor, _Replaced.apply(snapped, func(*args).detach()))
            return _mark(value, "hard threshold")
        plain = name.removesuffix("_")
        first = args[0] if args and isinstance(args[0], Tensor) else None
        if first is None or not first.requires_grad or "out" in kwargs:
            return func(*args, **kwargs)
        if name in CUTS and not first.is_leaf:  # leaves are weights
            return _uncut(first, func, plain)
        if plain in ROUNDINGS | SIGNS:
            with torch._C.DisableTorchFunctionSubclass():
                value = getattr(torch, plain)(first.detach(), *args[1:], **kwargs)
                near = first.clamp(-1, 1) if plain in SIGNS else first
                result = cast(Tensor, _Replaced.apply(near, value))
            return _mark(first.copy_(result) if name.endswith("_") else result, plain)
        return func(*args, **kwargs)

    def _attribute(self, func: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Read `tensor.data`, the tensor without its history: another way to cut."""
        owner = args[0] if args and isinstance(args[0], Tensor) else None
        data = getattr(Tensor, "data").__get__  # noqa: B009 (its type is not that of a tensor)
        if func == data and owner is not None and owner.grad_fn is not None:
            return _uncut(owner, func, "data")
        return func(*args, **kwargs)


def _uncut(first: Tensor, func: Callable[..., Any], name: str) -> Tensor:
    """Return what a cut puts out, still joined to its history."""
    if func is Tensor.detach_:
        return _mark(first, name)
    with torch._C.DisableTorchFunctionSubclass():
        # A view, as a detached tensor is one: what is written into it is written into both.
        return _mark(first.view_as(first), name)


def _mark(tensor: Tensor, name: str) -> Tensor:
    """Note on the node that made a tensor what operation it stands for."""
    node = tensor.grad_fn
    if node is not None:
        cast(dict[str, Any], node.metadata).setdefault(_MARK, set()).add(name)
    return tensor


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for each in value:
            yield from _tensors(each)
    elif isinstance(value, dict):
        for each in value.values():
            yield from _tensors(each)


def _writes_into_weights(name: str, args: Any, kwargs: Any) -> bool:
    """Return whether an operation writes where no gradient may pass: a leaf, or `out=`."""
    if kwargs.get("out") is not None:
        return True
    in_place = (name.endswith("_") and not name.endswith("__")) or name in _OPERATORS_IN_PLACE
    target = args[0] if args else None
    return in_place and isinstance(target, Tensor) and target.is_leaf and target.requires_grad


@contextlib.contextmanager
def _keeping_no_graph(model: Model) -> Iterator[None]:
    """Cut the model's statistics and caches off from this pass when it is over."""
    parts = list(model.modules()) if isinstance(model, nn.Module) else []
    places = [
        place
        for part in parts
        if not isinstance(part, torch.jit.ScriptModule)
        for place in (part._buffers, part.__dict__)
    ]
    joined = {id(tensor) for place in places for tensor in _with_history(place).values()}
    try:
        yield
    finally:
        for place in places:
            for name, tensor in _with_history(place).items():
                if id(tensor) not in joined:
                    place[name] = tensor.detach()


def _with_history(place: Mapping[str, Any]) -> dict[str, Tensor]:
    return {
        name: value
        for name, value in place.items()
        if isinstance(value, Tensor) and value.grad_fn is not None
    }


def straight_through(model: Model) -> Model:
    """Return the same model, whose roundings, signs and cuts let gradients pass.

    A compiled module's operations are not called one by one: what it was compiled from runs.
    """
    model = uncompiled(model) if isinstance(model, nn.Module) else model

    def call(images: Tensor) -> Tensor:
        # The copy is no leaf of the graph, as weights are.
        with _keeping_no_graph(model), StraightThrough():
            return model(images.clone())

    return call


def flat_operations(model: Model, images: Tensor) -> frozenset[str]:
    """Return which operations between images (N, C, H, W) and logits stop a gradient.

    Empty for a model to which `straight_through` makes no difference.
    """
    leaf = images.detach().clone().requires_grad_()
    with torch.enable_grad():
        logits = straight_through(model)(leaf)
    return _marks_between(logits, leaf)


def _marks_between(logits: Tensor, leaf: Tensor) -> frozenset[str]:
    """Return the marks on all ways through the graph from the logits to a leaf."""
    if logits.grad_fn is None:
        return frozenset()
    users: dict[Any, list[Any]] = {logits.grad_fn: []}
    waiting: list[Any] = [logits.grad_fn]
    ends = []
    while waiting:
        node = waiting.pop()
        if getattr(node, "variable", None) is leaf:
            ends.append(node)
        for following, _ in node.next_functions:
            if following is None:
                continue
            if following not in users:
                users[following] = []
                waiting.append(following)
            users[following].append(node)
    found: set[str] = set()
    seen = set(ends)
    while ends:
        node = ends.pop()
        found |= node.metadata.get(_MARK, set())
        for user in users[node]:
            if user not in seen:
                seen.add(user)
                ends.append(user)
    return frozenset(found)


def through(module: Model, surrogate: Model) -> Model:
    """Return the logits of `module` with the gradient of `surrogate`."""

    def call(images: Tensor) -> Tensor:
        with torch.no_grad():
            logits = module(images.detach().clone())
        stand_in = surrogate(images)
        replaced = _Replaced.apply(stand_in, logits.to(stand_in.dtype))
        return cast(Tensor, replaced)

    return call
