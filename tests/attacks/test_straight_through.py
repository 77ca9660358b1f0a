"""Gradients pass where the model stops them, and its answers stay what they are."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
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
        lambda values: values + 0 * len(torch.where(values > 0)[0]),
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


class _Statistics(nn.Module):
    """Keeps running means of its images, in each of the usual ways, and never reads them."""

    first: Tensor
    second: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("first", torch.zeros(()))
        self.register_buffer("second", torch.zeros(()))
        self.seen = torch.zeros(())
        self.last = torch.zeros(())

    def forward(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            self.first.mul_(0.9).add_(images.mean())
        self.second.mul_(0.9).add_(images.detach().mean())
        self.seen = 0.9 * self.seen + images.data.mean()
        self.last = images.detach().round()
        return _logits(images)


class _Weights(nn.Module):
    """Weights that are masked, quantized, clipped, standardized and scaled without gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(WEIGHT.clone())
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, images: Tensor) -> Tensor:
        self.weight.data.clamp_(-2, 2)
        with torch.no_grad():
            self.weight.clamp_(-2, 2)
            deviation = torch.nn.functional.normalize(self.weight, dim=0, out=torch.empty(12, 3))
        weight = self.weight * (self.weight.abs() > 0.5)
        weight = torch.where(weight.abs() < 0.7, 0.0, weight).round() + deviation.sum()
        attention = self.scale.softmax(0).detach() * (self.scale * 2).data.sign()
        return images.flatten(1) @ weight * attention


@pytest.mark.parametrize("build", [_Statistics, _Weights])
def test_what_does_not_stand_between_image_and_logits_is_none(
    build: Callable[[], nn.Module],
) -> None:
    images = torch.rand(4, 3, 2, 2, generator=torch.Generator().manual_seed(1))
    module = build()
    expected = module(images)
    assert flat_operations(module, images) == frozenset()
    torch.testing.assert_close(straight_through(module)(images), expected)
    # Nothing of a pass is kept beyond it, so that the next one can be differentiated too.
    for _ in range(2):
        assert _gradient(straight_through(module), images).abs().sum() > 0
    kept = [*module.buffers(), *(v for v in vars(module).values() if isinstance(v, Tensor))]
    assert all(tensor.grad_fn is None for tensor in kept)


def test_what_is_cut_under_no_grad_is_found_though_weights_are_used_there_too() -> None:
    layer = nn.Linear(12, 3)

    def model(images: Tensor) -> Tensor:
        with torch.no_grad():
            hidden = layer(images.flatten(1))
        return hidden * 2

    images = torch.rand(4, 3, 2, 2, generator=torch.Generator().manual_seed(1))
    assert flat_operations(model, images) == {"no_grad"}
    assert _gradient(straight_through(model), images).abs().sum() > 0
