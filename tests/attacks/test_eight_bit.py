"""Images on the 8-bit grid: on it, inside the ball wherever the ball holds grid points."""

from __future__ import annotations

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bench.attacks import inside
from bench.attacks.distances import Norm
from bench.attacks.eight_bit import LEVELS, eight_bit_successes, project_to_grid

SHAPE = (3, 1, 4, 4)
CLEAN = arrays.arrays(np.int64, SHAPE, elements=st.integers(0, LEVELS))
STEPS = arrays.arrays(np.float64, SHAPE, elements=st.floats(-1, 1))
BALLS = st.sampled_from(
    [("Linf", 8 / 255), ("Linf", 0.031), ("L2", 0.5), ("L2", 0.02), ("L1", 2.0)]
)


def _inside(clean: torch.Tensor, step: torch.Tensor, norm: str, eps: float) -> torch.Tensor:
    """Images within the ball, on its surface unless [0, 1] cuts them off."""
    flat = step.flatten(1)
    order = {"Linf": torch.inf, "L2": 2, "L1": 1}[norm]
    length = torch.linalg.vector_norm(flat, ord=order, dim=1, keepdim=True).clamp_min(1e-12)
    return (clean + (eps * flat / length).view_as(clean)).float().clamp(0, 1)


@given(CLEAN, STEPS, BALLS, st.booleans())
def test_grid_images_stay_in_the_ball_of_a_clean_image_on_the_grid(
    levels: np.ndarray, steps: np.ndarray, ball: tuple[Norm, float], outward: bool
) -> None:
    clean = torch.from_numpy(levels).float() / LEVELS
    images = _inside(clean, torch.from_numpy(steps), *ball)
    projected = project_to_grid(images, clean, *ball, outward)
    assert bool(inside(projected, clean, *ball).all())
    assert torch.equal(projected, (projected * LEVELS).round() / LEVELS)


def test_a_ball_without_grid_points_is_left() -> None:
    clean = torch.full((1, 1, 1, 1), 0.5)
    projected = project_to_grid(clean, clean, "Linf", 0.001)
    assert not bool(inside(projected, clean, "Linf", 0.001))


@pytest.mark.parametrize(("threshold", "survives"), [(0.5 + 7.4 / 255, True), (0.99, False)])
def test_an_image_that_rounding_brings_back_is_tried_farther_out(
    threshold: float, survives: bool
) -> None:
    clean = torch.full((1, 1, 1, 1), 127 / 255)
    image = clean + 7.9 / 255  # rounds to 135: 0.5294; the threshold is just above 134 / 255

    def predict(images: torch.Tensor) -> torch.Tensor:
        return (images.flatten(1)[:, 0] > threshold).long()

    labels = torch.zeros(1, dtype=torch.int64)
    broken = eight_bit_successes(image, clean, labels, predict, "Linf", 8 / 255)
    assert bool(broken) is survives
