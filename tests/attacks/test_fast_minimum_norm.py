"""FMN's perturbations against the smallest ones, where those are known exactly."""

from __future__ import annotations

from typing import Literal

import pytest
import torch

from bench.attacks import FMN, keyed_draws
from bench.attacks.distances import norms
from bench.attacks.projections import onto_hyperplane
from tests.attacks.networks import some_images


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_it_is_near_the_smallest_perturbation_of_a_linear_model(
    norm: Literal["Linf", "L2"],
) -> None:
    images = some_images(16, dtype=torch.float64)
    generator = torch.Generator().manual_seed(4)
    weights = torch.randn(images[0].numel(), generator=generator, dtype=torch.float64)

    def model(points: torch.Tensor) -> torch.Tensor:
        lead = (points - 0.5).flatten(1) @ weights
        return torch.stack((torch.zeros_like(lead), lead), dim=1)

    labels = model(images).argmax(dim=1)
    offsets = model(images)[:, 1]
    flat = images.flatten(1)
    exact = norms(onto_hyperplane(flat, weights.expand_as(flat), offsets, norm), norm)
    attack = FMN(norm, 1e-3, steps=100, minimal=True)
    draws = keyed_draws(0, torch.arange(16), "fmn")
    state = attack.start(images, labels, draws)
    for _ in range(100):
        attack.step(model, state)
    ratio = state.best_distance / exact
    assert ratio.min() >= 1 - 1e-6
    assert ratio.max() < 1.05
    assert (model(state.best).argmax(dim=1) != labels).all()
    nearer = attack.start_at(state.best, images, labels)
    for _ in range(100):
        attack.step(model, nearer)
    assert (nearer.best_distance <= state.best_distance).all()
