"""The one definition of being inside the ball."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bench.attacks.distances import Norm, norms
from bench.attacks.tolerance import inside, tolerance

EPS: dict[Norm, float] = {"Linf": 8 / 255, "L2": 0.5, "L1": 12.0}
GENERATOR = torch.Generator().manual_seed(0)
CLEAN = torch.rand(30, 3, 32, 32, generator=GENERATOR)
NOISE = torch.randn(30, 3, 32, 32, generator=GENERATOR)


def at_distance(norm: Norm, distance: float) -> Tensor:
    """x + delta in float32, not clamped, with ||delta|| = distance up to float32."""
    direction = NOISE.sign() if norm == "Linf" else NOISE
    return CLEAN + direction * (distance / norms(direction, norm)).view(-1, 1, 1, 1)


@pytest.mark.parametrize("norm", list(EPS))
def test_rounding_is_forgiven_and_nothing_else(norm: Norm) -> None:
    clean = CLEAN.clamp(0.2, 0.8)
    eps = EPS[norm]
    on_the_sphere = at_distance(norm, eps) - CLEAN + clean
    assert inside(on_the_sphere, clean, norm, eps).all()
    beyond = at_distance(norm, eps * (1 + 1e-4)) - CLEAN + clean
    assert not inside(beyond, clean, norm, eps).any()
    assert tolerance(norm, eps, 3072) < 1e-4 * eps


def test_range_is_exact() -> None:
    images = CLEAN.clone()
    images[0, 0, 0, 0] = 1 + 2.0**-23
    images[1, 0, 0, 0] = -(2.0**-149)
    images[2, 0, 0, 0] = float("nan")
    images[3] = 1.0
    ok = inside(images, CLEAN, "Linf", 2.0)
    assert ok.tolist() == [False] * 3 + [True] * 27
