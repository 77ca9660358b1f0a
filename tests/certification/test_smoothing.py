"""CERTIFY beside the paper's loop, its guarantee, and each wrong setting."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.special import ndtr, ndtri
from scipy.stats import beta, norm
from torch import Tensor, nn

from bench import data
from bench.certification.accuracy import linf_radius
from bench.certification.noise import Noise, Piece
from bench.certification.smoothing import Smoothing, certified_radii, certify
from bench.errors import InputError
from bench.statistics.clopper_pearson import clopper_pearson_lower
from bench.store.records import ABSTAINED

SIGMA, N0, N, ALPHA = 0.25, 20, 350, 0.001


def _textbook(module: nn.Module, image: Tensor, noise: Iterator[Tensor]) -> tuple[int, float]:
    """CERTIFY as the paper's box has it: one image, one noise vector after the other."""

    def sample_under_noise(count: int) -> list[int]:
        counts = [0] * 10
        for _ in range(count):
            counts[int(module((image + SIGMA * next(noise))[None]).argmax())] += 1
        return counts

    counts0 = sample_under_noise(N0)
    guess = max(range(10), key=counts0.__getitem__)
    k = sample_under_noise(N)[guess]
    lower = beta.ppf(ALPHA, k, N - k + 1) if k else 0.0
    return (guess, SIGMA * norm.ppf(lower)) if lower >= 0.5 else (ABSTAINED, 0.0)


@pytest.mark.parametrize("batch_size", [7, 1_000])
def test_certify_equals_the_textbook_loop(linear_digits: nn.Module, batch_size: int) -> None:
    abstained = set()
    for index, image in enumerate(data.load("digits").images[:12], start=40):
        found = certify(
            linear_digits,
            image,
            SIGMA,
            N0,
            N,
            ALPHA,
            noise=Noise(3),
            index=index,
            batch_size=batch_size,
        )
        same = iter(Noise(3).normal([Piece(0, index, 0, N0 + N)], image.shape))
        with torch.no_grad():
            prediction, radius = _textbook(linear_digits, image, same)
        assert found[0] == prediction
        assert found[1] == pytest.approx(radius, abs=1e-12)
        abstained.add(found[0] == ABSTAINED)
    assert abstained == {True, False}


def test_certificates_of_a_half_space_fail_no_oftener_than_alpha() -> None:
    """The radius of a linear classifier is known: the distance to its boundary."""
    distance, alpha, repetitions = 0.2, 0.1, 600

    def half_space(images: Tensor) -> Tensor:
        return torch.stack([torch.zeros(len(images)), images.flatten(1)[:, 0]], dim=1)

    image = torch.tensor([distance]).view(1, 1, 1)
    radii = np.array(
        [
            certify(half_space, image, 0.5, 10, 200, alpha, noise=Noise(5), index=each)[1]
            for each in range(repetitions)
        ]
    )
    # Three standard errors of a rate of 0.1.
    assert (radii > distance).mean() <= alpha + 3 * math.sqrt(alpha * (1 - alpha) / repetitions)
    assert radii.max() < 0.5 * ndtri(ndtr(distance / 0.5) + 0.2)
    assert radii.mean() > 0.25 * distance


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sigma": 0.0}, "sigma > 0, got 0.0"),
        ({"selection_samples": 0}, "selection_samples >= 1, got 0"),
        ({"noise_samples": 0}, "noise_samples >= 1, got 0"),
        ({"failure_probability": 1.0}, r"failure probability in \(0, 1\), got 1.0"),
    ],
)
def test_wrong_settings_are_named(changes: dict[str, float], message: str) -> None:
    settings = Smoothing(0.5)
    with pytest.raises(InputError, match=message):
        Smoothing(**{**vars(settings), **changes})
    with pytest.raises(InputError, match=message):
        certify(
            nn.Flatten(),
            torch.zeros(1, 2, 2),
            **{
                name: {**vars(settings), **changes}[attribute]
                for name, attribute in zip(
                    ("sigma", "n0", "n", "alpha"), vars(settings), strict=True
                )
            },
            noise=Noise(0),
        )


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


@given(
    sigma=st.floats(0.05, 2),
    radius=st.floats(0.01, 4),
    failure=st.floats(1e-6, 0.5),
)
def test_so_many_draws_that_all_agree_certify_a_radius_and_one_less_does_not(
    sigma: float, radius: float, failure: float
) -> None:
    assume(radius < 4 * sigma)
    draws = Smoothing(sigma, 1, 1, failure).draws_for(radius)

    def certified(count: int) -> float:
        bounds = clopper_pearson_lower(np.array([count]), count, failure)
        return float(certified_radii(bounds, sigma)[0])

    slack = 1e-6 * radius
    assert certified(draws) >= radius - slack
    assert Smoothing(sigma, 1, draws, failure).largest_radius == pytest.approx(certified(draws))
    if draws > 1:
        fewer = certified(draws - 1)
        assert math.isnan(fewer) or fewer <= radius + slack
