"""Certificates of a mix: the votes' bounds, the radius, and what the accurate base may decide."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtr, ndtri

from bench.certification.mix import MixedVote, smoothing_radius, vote_bounds
from bench.certification.procedure import FixedProcedure
from bench.certification.smoothing import Smoothing
from bench.errors import InputError
from bench.store.records import ABSTAINED

ALPHAS = st.floats(0.5, 1)
SIGMAS = st.floats(0.05, 2)
PROBABILITIES = st.floats(1e-6, 1 - 1e-6)
SMOOTHING = Smoothing(0.5, 10, 1_000, 0.001)


@st.composite
def bounds(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Bounds of one sample: the right class's and two others'."""
    right = draw(PROBABILITIES)
    others = [draw(st.floats(0, 1 - right)) for _ in range(2)]
    return np.array([right]), np.array([others])


def _radius(right: np.ndarray, others: np.ndarray, alpha: float, sigma: float) -> float:
    return float(smoothing_radius(right, others, alpha, sigma)[0])


def _paper_radius(right: np.ndarray, others: np.ndarray, alpha: float, sigma: float) -> float:
    """Bai et al.'s radius: sigma / 2 (Phi^-1(alpha p_y) - max_i Phi^-1(alpha p_i + 1 - alpha))."""
    high = min(1 - alpha + alpha * float(others.max()), 1.0)
    return max(0.0, sigma / 2 * float(ndtri(alpha * right[0]) - ndtri(high)))


def _lipschitz_radius(right: np.ndarray, others: np.ndarray, alpha: float, sigma: float) -> float:
    """Bai et al.'s radius from the slope 1 / (sigma sqrt(2 pi)) of probabilities under noise."""
    margin = alpha * float(right[0] - others.max()) + alpha - 1
    return max(0.0, margin / (2 * alpha) * sigma * math.sqrt(2 * math.pi))


@given(bounds(), ALPHAS, SIGMAS)
def test_the_radius_is_never_below_those_of_the_paper(
    sample: tuple[np.ndarray, np.ndarray], alpha: float, sigma: float
) -> None:
    ours = _radius(*sample, alpha, sigma)
    for other in (_paper_radius(*sample, alpha, sigma), _lipschitz_radius(*sample, alpha, sigma)):
        assert ours >= other * (1 - 1e-9) - 1e-12
    right, others = sample
    assert ours == 0 or alpha * (right[0] - others.max()) >= 1 - alpha


@given(bounds(), SIGMAS)
def test_alpha_one_gives_the_base_own_radius(
    sample: tuple[np.ndarray, np.ndarray], sigma: float
) -> None:
    right, others = sample
    own = max(0.0, sigma / 2 * float(ndtri(right[0]) - ndtri(others.max())))
    assert _radius(right, others, 1.0, sigma) == pytest.approx(own, rel=1e-12)


@given(bounds(), ALPHAS, SIGMAS, st.floats(0, 1), st.sampled_from(["right", "others", "alpha"]))
def test_the_radius_is_monotone(
    sample: tuple[np.ndarray, np.ndarray], alpha: float, sigma: float, step: float, which: str
) -> None:
    right, others = sample
    before = _radius(right, others, alpha, sigma)
    if which == "right":
        right = right + step * (1 - right) * 0.999
    elif which == "others":
        others = others * step
    else:
        alpha = alpha + step * (1 - alpha)
    after = _radius(right, others, alpha, sigma)
    assert after >= before * (1 - 1e-9) - 1e-12
    # The noise scales every radius.
    np.testing.assert_allclose(_radius(right, others, alpha, 2 * sigma), 2 * after)


@settings(deadline=None, max_examples=50)
@given(st.floats(0.501, 0.999), st.floats(0.51, 1), SIGMAS)
def test_radius_is_exact_on_two_classes_with_a_linear_boundary(
    probability: float, alpha: float, sigma: float
) -> None:
    # A step of t sigma towards the boundary of a smoothed half-space leaves p_y at Phi(a - t); the
    # accurate base may err with probability 1 wherever it likes.
    sample = np.array([probability]), np.array([[1 - probability]])
    steps = np.linspace(0, 4, 100_001)
    right = ndtr(ndtri(probability) - steps)
    broken = alpha * right < alpha * (1 - right) + (1 - alpha)
    worst = sigma * steps[np.argmax(broken)]
    tolerance = sigma * (steps[1] + 1e-6)
    assert _radius(*sample, alpha, sigma) == pytest.approx(worst, abs=tolerance)


def test_known_radii() -> None:
    sample = np.array([0.95]), np.array([[0.05]])
    assert round(_paper_radius(*sample, 0.7, 1.0), 2) == 0.43
    assert round(_radius(*sample, 0.7, 1.0), 2) == 1.08


def test_extremes_are_certain() -> None:
    right, others = np.array([1.0, 1.0, 0.5]), np.array([[0.0], [0.3], [0.5]])
    for alpha in (0.0, 0.4, 1.0):
        radii = smoothing_radius(right, others, alpha, 1.0)
        assert np.all(radii == (0 if alpha < 0.5 else [np.inf, np.inf, 0]))
    radii = smoothing_radius(right, others, np.array([0.8, 0.8, 1.0]), 1.0)
    assert radii[0] == np.inf
    assert radii[1] == pytest.approx(float(ndtri(0.75) - ndtri(0.3)))
    assert radii[2] == 0


def test_bounds_of_all_classes_hold_together() -> None:
    generator = np.random.default_rng(4)
    n, failure, repetitions = 300, 0.1, 400
    failed = 0
    for votes in generator.multinomial(n, [0.6, 0.3, 0.1], repetitions):
        found = vote_bounds(votes, 0, failure, n)
        assert found.others.shape == (2,)
        assert np.all(found.others <= 1 - found.right)
        failed += bool(found.right > 0.6 or (found.others < [0.3, 0.1]).any())
    # Three standard errors of a rate of 0.1.
    assert failed / repetitions <= failure + 0.045


def conclude(
    accurate: list[float], alpha: float, votes: list[int], without_class: int = 0
) -> tuple[int, float] | None:
    mixed = MixedVote(np.array([accurate]), alpha, SMOOTHING)
    counts = np.array(votes, dtype=np.int64)
    return mixed(0, counts, counts, int(counts.sum()) + without_class)


@given(
    share=st.floats(0, 1),
    votes=st.tuples(*[st.integers(0, 500)] * 3).filter(lambda each: sum(each) > 0),
    alpha=st.floats(0, 1),
)
def test_a_positive_radius_holds_whatever_the_accurate_base_says(
    share: float, votes: tuple[int, int, int], alpha: float
) -> None:
    found = conclude([share, 1 - share, 0.0], alpha, list(votes))
    if found is None or found[1] == 0:
        return
    prediction, radius = found
    held = vote_bounds(np.array(votes), prediction, 0.001, sum(votes))
    assert alpha * (held.right - held.others.max()) >= (1 - alpha) * (1 - 1e-9)
    assert radius == _radius(np.array([held.right]), held.others[None], alpha, 0.5)


def test_the_whole_vote_has_the_smoothed_classifiers_radius_but_for_bonferroni() -> None:
    votes = [990, 6, 4]
    found = conclude([0.0, 1.0, 0.0], 1.0, votes)
    assert found is not None
    evidence = FixedProcedure(SMOOTHING).start(1)
    evidence.successes[0], evidence.drawn[0] = 990, 1_000
    (alone,) = FixedProcedure(SMOOTHING).radii(evidence)
    assert found[0] == 0
    assert 0.9 * alone < found[1] < alone * 1.1


@pytest.mark.parametrize(
    ("accurate", "votes", "expected"),
    [
        ([1.0, 0.0, 0.0], [600, 400, 0], 0),  # both agree: certain at the image, no radius
        ([0.0, 1.0, 0.0], [510, 490, 0], 1),  # the accurate base decides where the vote is split
        ([0.5, 0.5, 0.0], [510, 490, 0], None),  # too close to call
    ],
)
def test_without_a_lead_the_class_may_still_be_certain(
    accurate: list[float], votes: list[int], expected: int | None
) -> None:
    found = conclude(accurate, 0.6, votes)
    assert (None if found is None else found[0]) == expected
    assert found is None or found[1] == 0
    assert expected != ABSTAINED


def test_votes_for_no_class_count_against_every_class() -> None:
    whole = conclude([1.0, 0.0, 0.0], 0.9, [990, 10, 0])
    same = conclude([1.0, 0.0, 0.0], 0.9, [900, 100, 0])
    without = conclude([1.0, 0.0, 0.0], 0.9, [900, 0, 0], without_class=100)
    assert whole is not None
    assert same is not None
    assert without is not None
    assert 0 < without[1] <= same[1] < whole[1]
    assert conclude([0.5, 0.5, 0.0], 0.9, [400, 0, 0], without_class=600) is None
    assert conclude([0.4, 0.6, 0.0], 0.9, [0, 0, 0], without_class=1_000) is None


def test_an_accurate_base_without_an_answer_proves_nothing() -> None:
    assert conclude([float("nan")] * 3, 0.9, [1_000, 0, 0]) is None


RIGHT, OTHERS = np.array([0.9]), np.array([[0.1]])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: smoothing_radius(RIGHT, OTHERS, 1.1, 1.0), "alpha in"),
        (lambda: smoothing_radius(RIGHT, OTHERS, 0.7, 0.0), "sigma > 0, got 0"),
        (lambda: smoothing_radius(RIGHT + 1, OTHERS, 0.7, 1.0), "right in"),
        (lambda: smoothing_radius(RIGHT, OTHERS[0], 0.7, 1.0), "shapes"),
        (lambda: vote_bounds(np.ones(3, dtype=np.int64), 3, 0.1, 3), r"class in \[0, 3\), got 3"),
    ],
)
def test_wrong_arguments_are_named(call: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()
