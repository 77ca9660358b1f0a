"""Attacks on logits that are not finite, or so large that losses and gradients overflow."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from bench import data
from bench.attacks import APGD, FAB, Attack, SquareL2, SquareLinf, inside, keyed_draws, reopen
from bench.attacks.attack import attack_samples
from bench.attacks.losses import LOSSES, is_targeted
from bench.decision import classes_of

EPS = {"Linf": 0.2, "L2": 1.5}


def _attacks(norm: str) -> dict[str, tuple[Attack, int]]:
    """Attacks that break the linear digits with ease, and how many targets they aim for."""
    eps = EPS[norm]
    found: dict[str, tuple[Attack, int]] = {
        f"apgd-{loss}": (
            APGD(norm, eps, LOSSES[loss], targeted=is_targeted(loss), steps=20),
            3 if is_targeted(loss) else 0,
        )
        for loss in LOSSES
    }
    square = SquareLinf(eps, queries=200) if norm == "Linf" else SquareL2(eps, queries=200)
    return {
        **found,
        "fab": (FAB(norm, eps, steps=20, classes=10), 0),
        "fab-t": (FAB(norm, eps, steps=20), 3),
        "square": (square, 0),
    }


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("scale", [1.0, 1e30, 1e36, 3e37])
def test_images_stay_numbers_inside_the_ball_whatever_the_logits_size(
    linear_digits: nn.Module, norm: str, scale: float
) -> None:
    def model(images: Tensor) -> Tensor:
        assert images.isfinite().all()
        return scale * linear_digits(images)

    samples = data.load("digits").first(12)
    for name, (attack, targets) in _attacks(norm).items():
        outcome = attack_samples(
            attack, model, samples.images, samples.labels, name=name, targets=targets
        )
        assert inside(outcome.images, samples.images, norm, EPS[norm]).all(), name
        wrong = classes_of(model(outcome.images)) != samples.labels
        assert wrong[outcome.broken].all(), name


class _Stumbling(nn.Module):
    """A network that has no answer, and no gradient, the first few times that it is asked."""

    def __init__(self, network: nn.Module, nothing: float, column: int | None, times: int) -> None:
        super().__init__()
        self.network = network
        self.nothing = nothing
        self.column = column
        self.times = times

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images)
        if self.times <= 0:
            return logits
        self.times -= 1
        if self.column is None:
            return logits * self.nothing
        wrong = torch.full_like(logits, self.nothing)
        return logits.where(torch.arange(logits.shape[1]) != self.column, logits * wrong)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize(
    ("nothing", "column"), [(math.nan, None), (math.inf, None), (-math.inf, 0), (math.nan, 0)]
)
def test_what_is_not_confirmed_goes_on_as_well_as_if_nothing_had_been(
    linear_digits: nn.Module, norm: str, nothing: float, column: int | None
) -> None:
    samples = data.load("digits").first(12)
    right = classes_of(linear_digits(samples.images)) == samples.labels
    images, labels = samples.images[right], samples.labels[right]
    targets = (labels + 1) % 10
    rows = torch.arange(len(labels))

    def search(attack: Attack, times: int) -> int:
        model = _Stumbling(linear_digits, nothing, column, times)
        state = attack.start(images, labels, keyed_draws(0, rows, "it"), targets)
        for _ in range(attack.steps):
            stumbles = model.times > 0
            attack.step(model, state)
            if stumbles and model.times < times:
                assert attack.images(state)[state.broken].isfinite().all()
                reopen(state, state.broken.nonzero().flatten())
        assert attack.images(state).isfinite().all()
        return int((classes_of(linear_digits(attack.images(state))) != labels).sum())

    for name, (attack, _) in _attacks(norm).items():
        assert search(attack, 3) >= search(attack, 0) - 1, name


@pytest.mark.parametrize("change", [lambda x: x.sqrt(), lambda x: (x * x.log()).nan_to_num()])
def test_gradients_that_are_no_numbers_leave_no_such_pixels(
    linear_digits: nn.Module, change: Callable[[Tensor], Tensor]
) -> None:
    samples = data.load("digits").first(8)

    def model(images: Tensor) -> Tensor:
        assert images.isfinite().all()
        return linear_digits(images) + 0.01 * change(images).flatten(1)[:, :10]

    for norm in EPS:
        for name, (attack, targets) in _attacks(norm).items():
            attack_samples(
                attack, model, samples.images, samples.labels, name=name, targets=targets
            )
