"""Gradients through what has none: the straight-through estimator, without touching the model.

A. Athalye, N. Carlini, D. Wagner, "Obfuscated Gradients Give a False Sense of Security", 2018
(arXiv 1802.00420): a component that is flat, or cut out of the graph, is run as it is, and in the
backward pass replaced by one that is close to it and differentiable (BPDA). Where the author of a
candidate names no stand-in, the identity serves for roundings, hard thresholds and cuts in the
graph, and a clipped identity for signs.

A PyTorch function mode exchanges these operations while the model runs, wherever in its code they
are called; what the model computes stays the same, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from bench.attacks.attack import Model
from bench.attacks.hard_thresholds import snapped_values

ROUNDINGS = frozenset({"round", "floor", "ceil", "trunc", "fix"})
SIGNS = frozenset({"sign", "sgn"})
CUTS = frozenset({"detach", "detach_", "_set_grad_enabled"})


class _Replaced(torch.autograd.Function):
    """The second argument, with the gradient going to the first."""

    @staticmethod
    def forward(ctx: Any, near: Tensor, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return gradients[0], None


class StraightThrough(TorchFunctionMode):
    """Within this context flat and cut operations pass gradients on.

    Attributes:
        met: names of the operations that were replaced and stood between an image and a logit.
    """

    def __init__(self) -> None:
        super().__init__()
        self.met: set[str] = set()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Replace an operation that would stop a gradient; run any other as it is."""
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name == "_set_grad_enabled":
            if not args[0]:
                self.met.add("no_grad")
            # The caller decided that gradients are wanted; the model may not turn them off.
            return None
        if name == "__get__":
            return self._attribute(func, args, kwargs)
        snapped = snapped_values(name, args, kwargs)
        if snapped is not None:
            self.met.add("hard threshold")
            with torch._C.DisableTorchFunctionSubclass():
                return cast(Tensor, _Replaced.apply(snapped, func(*args).detach()))
        plain = name.removesuffix("_")
        first = args[0] if args and isinstance(args[0], Tensor) else None
        if first is None or not first.requires_grad or "out" in kwargs:
            return func(*args, **kwargs)
        if name in CUTS:
            self.met.add(plain)
            return first
        if plain in ROUNDINGS | SIGNS:
            self.met.add(plain)
            with torch._C.DisableTorchFunctionSubclass():
                value = getattr(torch, plain)(first.detach(), *args[1:], **kwargs)
                near = first.clamp(-1, 1) if plain in SIGNS else first
                result = cast(Tensor, _Replaced.apply(near, value))
            return first.copy_(result) if name.endswith("_") else result
        return func(*args, **kwargs)

    def _attribute(self, func: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """`tensor.data` is the tensor without its history: another way to cut."""
        owner = args[0] if args and isinstance(args[0], Tensor) else None
        data = getattr(Tensor, "data").__get__  # noqa: B009 (its type is not that of a tensor)
        if owner is not None and owner.requires_grad and func == data:
            self.met.add("data")
            return owner
        return func(*args, **kwargs)


def straight_through(model: Model) -> Model:
    """The same model, whose roundings, signs and cuts let gradients pass."""

    def call(images: Tensor) -> Tensor:
        with StraightThrough():
            return model(images)

    return call


def flat_operations(model: Model, images: Tensor) -> frozenset[str]:
    """Which operations between images (N, C, H, W) and logits stop a gradient.

    Empty for a model to which `straight_through` makes no difference.
    """
    with torch.enable_grad(), StraightThrough() as mode:
        model(images.detach().clone().requires_grad_())
    return frozenset(mode.met)


def through(module: Model, surrogate: Model) -> Model:
    """The logits of `module` with the gradient of `surrogate`."""

    def call(images: Tensor) -> Tensor:
        with torch.no_grad():
            logits = module(images.detach().clone())
        stand_in = surrogate(images)
        replaced = _Replaced.apply(stand_in, logits.to(stand_in.dtype))
        return cast(Tensor, replaced)

    return call
