"""Attacks as functions on tensors: what they return, what they leave alone, what they refuse."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bench.attacks
from bench import data
from bench.attacks import inside
from bench.errors import EvaluationError, InputError

EPS = {"Linf": 0.15, "L2": 0.8}
BUDGETS: dict[str, dict[str, Any]] = {
    "apgd": {"steps": 10},
    "fab": {"steps": 10, "targets": 2},
    "square": {"queries": 60},
}
FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    name: getattr(bench.attacks, name) for name in (*BUDGETS, "autoattack")
}


@pytest.fixture(scope="module")
def samples() -> tuple[Tensor, Tensor]:
    first = data.load("digits", "test").first(24)
    return first.images, first.labels


def _accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    with torch.no_grad():
        return float((model(images).argmax(dim=1) == labels).float().mean())


@pytest.mark.parametrize("norm", list(EPS))
@pytest.mark.parametrize("name", list(BUDGETS))
def test_images_are_adversarial_in_the_ball_or_clean(
    name: str, norm: str, linear_digits: nn.Module, samples: tuple[Tensor, Tensor]
) -> None:
    images, labels = samples
    before = images.clone()
    found = FUNCTIONS[name](linear_digits, images, labels, norm, EPS[norm], **BUDGETS[name])
    moved = (found != images).flatten(1).any(dim=1)
    wrong = linear_digits(found).argmax(dim=1) != labels
    clean_wrong = linear_digits(images).argmax(dim=1) != labels
    assert 0 < int(moved.sum()) < len(images)
    assert torch.equal(moved, wrong & ~clean_wrong)
    assert inside(found, images, norm, EPS[norm]).all()
    assert torch.equal(images, before)


def test_autoattack_is_at_least_as_strong_as_each_of_its_attacks(
    linear_digits: nn.Module, samples: tuple[Tensor, Tensor]
) -> None:
    images, labels = samples[0][:8], samples[1][:8]
    apgd = bench.attacks.apgd(linear_digits, images, labels, eps=0.05)
    all_four = bench.attacks.autoattack(linear_digits, images, labels, eps=0.05)
    moved = (all_four != images).flatten(1).any(dim=1)
    assert torch.all(moved[(apgd != images).flatten(1).any(dim=1)])
    assert not torch.all(moved)


@pytest.mark.parametrize("loss", ["ce", "dlr", "dlr-targeted"])
def test_losses_of_apgd(
    loss: Any, linear_digits: nn.Module, samples: tuple[Tensor, Tensor]
) -> None:
    found = bench.attacks.apgd(linear_digits, *samples, eps=0.15, steps=5, loss=loss, targets=3)
    assert _accuracy(linear_digits, found, samples[1]) < 0.9


class _Network(nn.Module):
    """Batch norm and dropout around a linear layer, so that modes matter."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1, affine=False)
        self.dropout = nn.Dropout(0.5)
        self.layer = copy.deepcopy(layer)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.layer(self.dropout(self.norm(images)))
        return logits


def test_a_module_in_training_mode_is_left_as_it_was(
    linear_digits: nn.Module, samples: tuple[Tensor, Tensor]
) -> None:
    model = _Network(linear_digits).train()
    model.dropout.eval()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    random_state = torch.random.get_rng_state()
    found = bench.attacks.apgd(model, *samples, eps=0.15, steps=5)
    assert model.training
    assert model.norm.training
    assert not model.dropout.training
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not model._forward_hooks
    assert not model._forward_pre_hooks
    assert torch.equal(torch.random.get_rng_state(), random_state)
    evaluated = bench.attacks.apgd(model.eval(), *samples, eps=0.15, steps=5)
    assert torch.equal(found, evaluated)


def test_modes_come_back_after_an_error(
    linear_digits: nn.Module, samples: tuple[Tensor, Tensor]
) -> None:
    model = _Network(linear_digits).train()
    with pytest.raises(InputError, match=r"labels in \[0, 10\), the model's classes; got 12"):
        bench.attacks.apgd(model, samples[0], samples[1] * 0 + 12)
    assert model.norm.training


@pytest.mark.parametrize(
    ("dtype", "returned"),
    [
        (torch.float64, torch.float64),
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
    ],
)
def test_other_dtypes(
    dtype: torch.dtype,
    returned: torch.dtype,
    linear_digits: nn.Module,
    samples: tuple[Tensor, Tensor],
) -> None:
    images, labels = samples[0].to(dtype), samples[1]
    found = bench.attacks.apgd(linear_digits, images, labels, eps=0.15, steps=5)
    assert found.dtype == returned
    assert inside(found.float(), images.float(), "Linf", 0.15).all()
    assert _accuracy(linear_digits, found.float(), labels) < 0.9


def test_a_model_in_another_dtype_is_shown_its_own(samples: tuple[Tensor, Tensor]) -> None:
    layer = nn.Linear(64, 10).double()
    model = nn.Sequential(nn.Flatten(), layer).eval()
    images = samples[0].double()
    labels = model(images).argmax(dim=1)
    found = bench.attacks.apgd(model, images, labels, eps=0.3, steps=5)
    assert (model(found).argmax(dim=1) != labels).any()


def test_layout_labels_and_batch_size_change_nothing(
    linear_digits: nn.Module, samples: tuple[Tensor, Tensor]
) -> None:
    images, labels = samples
    options: dict[str, Any] = {"eps": 0.15, "steps": 5}
    expected = bench.attacks.apgd(linear_digits, images, labels, **options)
    transposed = images.transpose(2, 3).contiguous().transpose(2, 3)
    assert not transposed.is_contiguous()
    for changed, classes, size in (
        (transposed, labels.int(), None),
        (images.clone().requires_grad_(), labels.to(torch.uint8), 5),
        (images, labels, 1000),
    ):
        found = bench.attacks.apgd(linear_digits, changed, classes, batch_size=size, **options)
        assert not found.requires_grad
        torch.testing.assert_close(found, expected)
    with torch.inference_mode():
        again = bench.attacks.apgd(linear_digits, images.clone(), labels, **options)
    torch.testing.assert_close(again.clone(), expected)


def test_any_callable_is_a_model(linear_digits: nn.Module, samples: tuple[Tensor, Tensor]) -> None:
    found = bench.attacks.apgd(lambda x: 3 * linear_digits(x), *samples, eps=0.15, steps=5)
    assert _accuracy(linear_digits, found, samples[1]) < 0.9


def test_seeds_are_the_randomness(linear_digits: nn.Module, samples: tuple[Tensor, Tensor]) -> None:
    one, same, other = (
        bench.attacks.square(linear_digits, *samples, eps=0.2, queries=50, seed=seed)
        for seed in (1, 1, 2)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


IMAGES, LABELS = torch.zeros(3, 1, 8, 8), torch.zeros(3, dtype=torch.int64)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": 255 * IMAGES + 255}, r"images in \[0, 1\], got values from 255 to 255; scale"),
        ({"images": IMAGES - 1}, r"got values from -1 to -1"),
        ({"images": IMAGES / 0}, r"images in \[0, 1\], got NaN"),
        ({"images": IMAGES.byte()}, "floating-point images .*, got torch.uint8; divide"),
        ({"images": IMAGES[0]}, r"shape \(N, C, H, W\), got \(1, 8, 8\)"),
        ({"images": IMAGES[:0], "labels": LABELS[:0]}, "at least one image, got shape"),
        ({"images": IMAGES.numpy()}, "images as a tensor, got ndarray"),
        ({"labels": [0, 0, 0]}, "labels as a tensor, got list"),
        ({"labels": LABELS.float()}, "integer labels, one class an image; got torch.float32"),
        ({"labels": LABELS[:2]}, r"labels of shape \(3,\), one for each image; got \(2,\)"),
        ({"labels": LABELS + 10}, r"labels in \[0, 10\), the model's classes; got 10"),
        ({"labels": LABELS - 1}, r"labels in \[0, 10\), the model's classes; got -1"),
        ({"norm": "L1"}, "expected norm Linf or L2 for APGD, got L1"),
        ({"eps": 0.0}, "field eps: expected a number above 0.*got 0"),
        ({"eps": 8}, "did you mean 8/255"),
        ({"steps": 0}, "expected a whole number of at least 1 for steps, got 0"),
        ({"loss": "hinge"}, "expected a loss of ce, dlr, dlr-targeted; got 'hinge'"),
        ({"seed": -1}, r"seed as a whole number in \[0, 2\^64\), got -1"),
        ({"batch_size": 0}, "batch size >= 1, got 0"),
        ({"model": 3}, "a model that can be called, got int"),
        ({"model": lambda images: images}, r"logits of shape \(3, K\) with K >= 2 classes"),
        ({"model": lambda images: (images,)}, "logits as one tensor, got tuple; say which"),
        ({"model": nn.Linear(3, 3)}, r"logits of images \(3, 1, 8, 8\).*got RuntimeError"),
        ({"model": nn.Linear(3, 3, device="meta")}, "on the CPU or on a CUDA device, got one on m"),
    ],
)
def test_what_does_not_fit_is_named(
    change: dict[str, Any], message: str, linear_digits: nn.Module
) -> None:
    arguments = {"model": linear_digits, "images": IMAGES, "labels": LABELS, **change}
    with pytest.raises(InputError, match=message):
        bench.attacks.apgd(**arguments)


def test_a_model_without_a_gradient_is_attacked_by_square_alone(
    linear_digits: nn.Module, samples: tuple[Tensor, Tensor]
) -> None:
    def hard(images: Tensor) -> Tensor:
        with torch.no_grad():
            logits: Tensor = linear_digits(images)
        return logits

    with pytest.raises(EvaluationError, match=r"apgd-ce need; got logits without.*square"):
        bench.attacks.apgd(hard, *samples, eps=0.15)
    found = bench.attacks.square(hard, *samples, eps=0.3, queries=50)
    assert _accuracy(linear_digits, found, samples[1]) < 0.9


def test_a_randomized_model_is_told(samples: tuple[Tensor, Tensor]) -> None:
    class Noisy(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.flatten(1)[:, 10:20] + 0.1 * torch.randn(len(images), 10)

    images = samples[0][:4]
    labels = images.flatten(1)[:, 10:20].argmax(dim=1)
    with pytest.warns(UserWarning, match="change from call to call"):
        bench.attacks.apgd(Noisy().eval(), images, labels, eps=0.3, steps=3)
