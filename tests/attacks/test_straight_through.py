"""Gradients pass where the model stops them, and its answers stay what they are."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from bench.attacks.straight_through import flat_operations, straight_through, through

WEIGHT = torch.randn(12, 3, generator=torch.Generator().manual_seed(0))


def _logits(images: Tensor) -> Tensor:
    return images.flatten(1) @ WEIGHT


def _without_graph(images: Tensor) -> Tensor:
    with torch.no_grad():
        return _logits(images)


def _rounded_in_place(images: Tensor) -> Tensor:
    scaled = images * 8
    scaled.round_()
    return _logits(scaled / 8)


def _mean_centred(images: Tensor) -> Tensor:
    mean = torch.tensor([0.4, 0.5, 0.6]).view(1, 3, 1, 1)
    crop = torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1)
    near = (images - mean).abs() < crop
    return _logits(torch.where(near, mean * torch.ones_like(images), images))


def _gradient(model: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    inputs = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model(inputs)[:, 0].sum(), inputs)
    return gradient


@pytest.mark.parametrize(
    ("model", "operation"),
    [
        (lambda images: _logits(torch.round(images * 8) / 8), "round"),
        (lambda images: _logits((images * 8).floor() / 8), "floor"),
        (lambda images: _logits(images.detach()), "detach"),
        (lambda images: _logits(images.data), "data"),
        (_without_graph, "no_grad"),
        (_rounded_in_place, "round"),
        (lambda images: _logits(functional.hardshrink(images, 0.3)), "hard threshold"),
        (lambda images: _logits(images * (images > 0.3)), "hard threshold"),
        (lambda images: _logits((images > 0.3).float() * images), "hard threshold"),
        (lambda images: _logits(images.masked_fill(images < 0.3, 0.0)), "hard threshold"),
        (_mean_centred, "hard threshold"),
    ],
)
def test_the_identity_stands_in(model: Callable[[Tensor], Tensor], operation: str) -> None:
    images = torch.rand(4, 3, 2, 2, generator=torch.Generator().manual_seed(1))
    assert flat_operations(model, images) == {operation}
    torch.testing.assert_close(
        _gradient(straight_through(model), images), _gradient(_logits, images)
    )
    torch.testing.assert_close(straight_through(model)(images), model(images))
    assert torch.is_grad_enabled()


def test_a_sign_passes_gradients_where_it_is_not_saturated() -> None:
    images = torch.tensor([[[[0.25, 2.0, -0.5, -3.0]]]])

    def model(inputs: Tensor) -> Tensor:
        return inputs.sign().flatten(1)

    inputs = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(straight_through(model)(inputs).sum(), inputs)
    assert gradient.flatten().tolist() == [1, 0, 1, 0]


@pytest.mark.parametrize(
    "activation",
    [
        lambda values: values,
        functional.relu,
        lambda values: torch.where(values > 0, values, 0.0),
        lambda values: values * (values > 0),
        lambda values: values.masked_fill(values < -0.5, -0.5).clamp(max=0.5),
    ],
)
def test_a_differentiable_model_is_left_alone(activation: Callable[[Tensor], Tensor]) -> None:
    images = torch.rand(4, 3, 2, 2, generator=torch.Generator().manual_seed(1))
    assert flat_operations(lambda inputs: activation(_logits(inputs)), images) == frozenset()


def test_a_named_surrogate_brings_its_gradient_and_not_its_answer() -> None:
    images = torch.rand(4, 3, 2, 2, generator=torch.Generator().manual_seed(1))

    def flat(inputs: Tensor) -> Tensor:
        return _logits(inputs).argmax(dim=1, keepdim=True).float().expand(-1, 3)

    both = through(flat, _logits)
    torch.testing.assert_close(both(images), flat(images))
    torch.testing.assert_close(_gradient(both, images), _gradient(_logits, images))
