"""No gradient is what says so; an error that may mean anything else is passed on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench import flags
from bench.attacks.image_gradient import GradientError, image_gradient
from bench.candidates import Candidate
from bench.runs.capabilities import capabilities

IMAGES = torch.rand(4, 1, 2, 2, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 3])


class _Failing(torch.autograd.Function):
    """A layer whose backward pass raises an error."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, error: Exception) -> Tensor:
        ctx.error = error
        return values * 1

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        raise ctx.error


class _Forward(torch.autograd.Function):
    """A layer without a backward pass."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return values * 1


def _failing(error: Exception) -> Callable[[Tensor], Tensor]:
    return lambda images: _Failing.apply(images.flatten(1), error)  # type: ignore[no-any-return]


def _overwritten(images: Tensor) -> Tensor:
    logits = images.flatten(1).exp()
    logits.add_(1)
    return logits


@pytest.mark.parametrize(
    "model",
    [
        lambda images: images.flatten(1).detach(),
        lambda images: torch.zeros(len(images), 4, requires_grad=True) + 1,
        lambda images: torch.from_numpy(images.numpy()).flatten(1),
        lambda images: _Forward.apply(images.flatten(1)),
        _failing(NotImplementedError("derivative for aten::fake is not implemented")),
        _overwritten,
    ],
)
def test_what_says_that_it_has_no_gradient_has_none(model: Callable[[Tensor], Tensor]) -> None:
    assert image_gradient(model, IMAGES, LABELS) is None


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("GET was unable to find an engine to execute this computation"),
        torch.OutOfMemoryError("CUDA out of memory"),
    ],
)
def test_memory_that_is_short_is_no_missing_gradient(error: Exception) -> None:
    with pytest.raises(type(error)):
        image_gradient(_failing(error), IMAGES, LABELS)


def test_any_other_error_is_named() -> None:
    with pytest.raises(GradientError, match="got ValueError: the fuse blew"):
        image_gradient(_failing(ValueError("the fuse blew")), IMAGES, LABELS)


def test_a_gradient_that_fails_is_flagged_and_leaves_no_attack_out() -> None:
    class Module(nn.Module):
        def __init__(self, error: Exception) -> None:
            super().__init__()
            self.error = error

        def forward(self, images: Tensor) -> Tensor:
            return _failing(self.error)(images)

    broken = Module(ValueError("the fuse blew")).eval()
    found = flags.inspect("it", broken, IMAGES, LABELS, 4, randomized=False)
    assert {flag.name for flag in found} == {"gradient-error"}
    cramped = Module(RuntimeError("CUDA error: out of memory")).eval()
    with pytest.raises(RuntimeError, match="out of memory"):
        flags.inspect("it", cramped, IMAGES, LABELS, 4, randomized=False)


def test_memory_that_is_short_leaves_no_adaptive_attack_out() -> None:
    class Cramped(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            if images.requires_grad:
                raise RuntimeError("CUDA error: out of memory")
            return images.flatten(1)

    with pytest.raises(RuntimeError, match="out of memory"):
        capabilities(Candidate("it", Cramped().eval(), {}, ""), IMAGES)
