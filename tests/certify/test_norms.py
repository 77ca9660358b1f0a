"""What a certificate in L2 proves in Linf."""

from __future__ import annotations

import math

import pytest
import torch

from bench.certify.norms import linf_radius


@pytest.mark.parametrize(
    ("shape", "expected"), [((1, 8, 8), 0.5 / 8), ((3, 32, 32), 0.5 / math.sqrt(3072))]
)
def test_the_linf_ball_just_fits_into_the_l2_ball(
    shape: tuple[int, int, int], expected: float
) -> None:
    eps = linf_radius(0.5, shape)
    assert eps == expected
    corner = torch.full(shape, eps, dtype=torch.float64)
    assert float(corner.norm()) == pytest.approx(0.5, abs=1e-12)
