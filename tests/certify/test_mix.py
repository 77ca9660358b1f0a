"""Certificates of a mix: against the paper's, the base's own, and a toy with a known answer."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtr, ndtri

from bench.certify import mix
from bench.errors import InputError

ALPHAS = st.floats(0.5, 1)
SIGMAS = st.floats(0.05, 2)
PROBABILITIES = st.floats(1e-6, 1 - 1e-6)


@st.composite
def bounds(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Bounds of one sample: the right class's and two others'."""
    right = draw(PROBABILITIES)
    others = [draw(st.floats(0, 1 - right)) for _ in range(2)]
    return np.array([right]), np.array([others])


def _radii(right: np.ndarray, others: np.ndarray, alpha: float, sigma: float) -> list[float]:
    slope = mix.smoothed_lipschitz_constant(sigma)
    return [
        float(mix.paper_smoothing_radius(right, others, alpha, sigma)[0]),
        float(mix.smoothing_radius(right, others, alpha, sigma)[0]),
        float(mix.lipschitz_radius(right, others, alpha, slope, slope)[0]),
    ]


@given(bounds(), ALPHAS, SIGMAS)
def test_the_tighter_radius_is_never_below_the_others(
    sample: tuple[np.ndarray, np.ndarray], alpha: float, sigma: float
) -> None:
    paper, tighter, lipschitz = _radii(*sample, alpha, sigma)
    assert tighter >= paper * (1 - 1e-9) - 1e-12
    assert tighter >= lipschitz * (1 - 1e-9) - 1e-12
    assert bool(mix.keeps_margin(*sample, alpha)[0]) or tighter == paper == lipschitz == 0


@given(bounds(), SIGMAS)
def test_alpha_one_gives_the_base_own_radius(
    sample: tuple[np.ndarray, np.ndarray], sigma: float
) -> None:
    right, others = sample
    own = max(0.0, sigma / 2 * float(ndtri(right[0]) - ndtri(others.max())))
    paper, tighter, _ = _radii(right, others, 1.0, sigma)
    assert tighter == pytest.approx(own, rel=1e-12)
    assert paper == pytest.approx(own, rel=1e-12)


@given(bounds(), ALPHAS, SIGMAS, st.floats(0, 1), st.sampled_from(["right", "others", "alpha"]))
def test_radii_are_monotone(
    sample: tuple[np.ndarray, np.ndarray], alpha: float, sigma: float, step: float, which: str
) -> None:
    right, others = sample
    before = _radii(right, others, alpha, sigma)
    if which == "right":
        right = right + step * (1 - right) * 0.999
    elif which == "others":
        others = others * step
    else:
        alpha = alpha + step * (1 - alpha)
    after = _radii(right, others, alpha, sigma)
    for low, high in zip(before, after, strict=True):
        assert high >= low * (1 - 1e-9) - 1e-12
    # The noise scales every radius.
    np.testing.assert_allclose(_radii(right, others, alpha, 2 * sigma), 2 * np.array(after))


@settings(deadline=None, max_examples=50)
@given(st.floats(0.501, 0.999), st.floats(0.51, 1), SIGMAS)
def test_radius_is_exact_on_two_classes_with_a_linear_boundary(
    probability: float, alpha: float, sigma: float
) -> None:
    # Of the smoothed half-space a step t sigma towards the boundary leaves p_y at Phi(a - t); the
    # accurate base may err with probability 1 wherever it likes.
    sample = np.array([probability]), np.array([[1 - probability]])
    steps = np.linspace(0, 4, 100_001)
    right = ndtr(ndtri(probability) - steps)
    broken = alpha * right < alpha * (1 - right) + (1 - alpha)
    worst = sigma * steps[np.argmax(broken)]
    tolerance = sigma * (steps[1] + 1e-6)
    paper, tighter, lipschitz = _radii(*sample, alpha, sigma)
    assert tighter == pytest.approx(worst, abs=tolerance)
    assert max(paper, lipschitz) <= worst + tolerance


def test_radii_of_the_design() -> None:
    paper, tighter, _ = _radii(np.array([0.95]), np.array([[0.05]]), 0.7, 1.0)
    assert (round(paper, 2), round(tighter, 2)) == (0.43, 1.08)


def test_extremes_are_certain() -> None:
    right, others = np.array([1.0, 1.0, 0.5]), np.array([[0.0], [0.3], [0.5]])
    for alpha in (0.0, 0.4, 1.0):
        radii = mix.smoothing_radius(right, others, alpha, 1.0)
        assert np.all(radii == (0 if alpha < 0.5 else [np.inf, np.inf, 0]))
    radii = mix.smoothing_radius(right, others, np.array([0.8, 0.8, 1.0]), 1.0)
    assert radii[0] == np.inf
    assert radii[1] == pytest.approx(float(ndtri(0.75) - ndtri(0.3)))
    assert radii[2] == 0


def test_smallest_alpha() -> None:
    assert mix.smallest_alpha(0.15, 0.84) == 0.84
    assert mix.smallest_alpha(-0.2, 1.0) == pytest.approx(0.8)
    with pytest.raises(InputError, match=r"alpha inside \[0, 1\], got \[0.9, 1.1\]"):
        mix.smallest_alpha(0.2, 0.9)


RIGHT, OTHERS = np.array([0.9]), np.array([[0.1]])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mix.smoothing_radius(RIGHT, OTHERS, 1.1, 1.0), "alpha in"),
        (lambda: mix.smoothing_radius(RIGHT, OTHERS, 0.7, 0.0), "sigma > 0, got 0"),
        (lambda: mix.paper_smoothing_radius(RIGHT + 1, OTHERS, 0.7, 1.0), "right in"),
        (lambda: mix.keeps_margin(RIGHT, OTHERS[0], 0.7), "shapes"),
        (lambda: mix.lipschitz_radius(RIGHT, OTHERS, 0.7, 1.0, -1.0), "constants > 0"),
    ],
)
def test_wrong_arguments_are_named(call: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()
