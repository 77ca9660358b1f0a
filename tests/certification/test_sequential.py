"""The sequential procedure: as safe as the fixed one, as sharp, with a tenth of the draws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit, ndtr, ndtri
from scipy.stats import beta

from bench.certification.procedure import Evidence, FixedProcedure, Procedure
from bench.certification.sequential import (
    SEQUENTIAL_SHARE,
    SequentialProcedure,
    log_capital,
    lower_bounds,
    most_successes,
)
from bench.certification.smoothing import Smoothing
from bench.errors import InputError

RADII = (0.25, 0.5, 0.75)


def _simulate(
    procedure: Procedure, probabilities: np.ndarray, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Radii (NaN: abstained) and draws of samples whose class has these probabilities (N,)."""
    radii, draws = np.full(len(probabilities), np.nan), np.zeros(len(probabilities))
    open_rows = np.arange(len(probabilities))
    evidence = procedure.start(len(probabilities))
    drawn = 0
    while len(open_rows):
        following = procedure.next_look(drawn)
        evidence.successes += generator.binomial(following - drawn, probabilities[open_rows])
        evidence.drawn[:] = drawn = following
        settled = procedure.judge(evidence)
        parts = {name: value[settled] for name, value in vars(evidence).items()}
        radii[open_rows[settled]] = procedure.radii(Evidence(**parts))
        draws[open_rows[settled]] = drawn
        open_rows = open_rows[~settled]
        evidence = Evidence(**{name: value[~settled] for name, value in vars(evidence).items()})
    return radii, draws


def test_the_two_bounds_share_the_failure_probability() -> None:
    """By the union bound the certificate fails no oftener than both bounds' shares together."""
    failure, draws, sigma = 0.01, 2_000, 0.5
    assert SEQUENTIAL_SHARE == 0.7  # as the documents say
    procedure = SequentialProcedure(Smoothing(sigma, 100, draws, failure), (0.5,))
    assert procedure.settings["sequential_share"] == SEQUENTIAL_SHARE
    successes, drawn = np.arange(1_100, 1_990, 90), np.full(10, draws)
    sequence = lower_bounds(successes, drawn, 0.7 * failure)
    last = beta.ppf(0.3 * failure, successes, draws - successes + 1)
    expected = sigma * ndtri(np.maximum(sequence, last))
    unsettled = np.zeros((10, 1), dtype=np.bool_)
    evidence = Evidence(successes, drawn, unsettled, unsettled.copy())
    np.testing.assert_allclose(procedure.radii(evidence), expected, rtol=1e-9)
    # Before the last draw the kept share proves nothing.
    earlier = Evidence(successes - 1, drawn - 1, unsettled.copy(), unsettled.copy())
    alone = sigma * ndtri(lower_bounds(successes - 1, drawn - 1, 0.7 * failure))
    np.testing.assert_allclose(procedure.radii(earlier), alone, rtol=1e-9)


@pytest.mark.parametrize(("sigma", "radius"), [(0.25, 0.75), (0.5, 0.25)])
def test_false_certificates_are_rare_at_the_threshold(sigma: float, radius: float) -> None:
    # On the threshold from below a certificate of the radius is false, and likeliest to be given.
    failure, images = 0.01, 10_000
    threshold = float(ndtr(radius / sigma))
    procedure = SequentialProcedure(Smoothing(sigma, 100, 5_000, failure), (radius,))
    probabilities = np.full(images, threshold * (1 - 1e-9))
    radii, _ = _simulate(procedure, probabilities, np.random.default_rng(5))
    assert (radii >= radius).mean() <= failure
    # All the radii, too, not those alone that were asked for.
    spread = expit(logit(threshold) + np.linspace(-0.3, 0.3, images))
    radii, _ = _simulate(procedure, spread, np.random.default_rng(6))
    assert (ndtr(radii / sigma) > spread).mean() <= failure


@pytest.mark.parametrize(
    ("sigma", "quantiles"),
    [
        # Probabilities of the guessed class at the quantiles 0, 0.05, ..., 1 that published logs of
        # CIFAR-10 imply: SmoothMix, ResNet-110, and Gaussian augmentation, ResNet-20.
        (
            0.25,
            [
                0.300747,
                0.543272,
                0.634914,
                0.728578,
                0.815467,
                0.887276,
                0.936136,
                0.967685,
                0.987235,
                0.995465,
                0.998645,
                0.999665,
                0.999945,
                0.999995,
                0.999995,
                0.999995,
                0.999995,
                0.999995,
                0.999995,
                0.999995,
                0.999995,
            ],
        ),
        (
            0.5,
            [
                0.300057,
                0.371141,
                0.43696,
                0.50507,
                0.548494,
                0.592659,
                0.640039,
                0.682528,
                0.728118,
                0.775397,
                0.817077,
                0.856596,
                0.894436,
                0.924236,
                0.948706,
                0.970395,
                0.985045,
                0.993085,
                0.998065,
                0.999775,
                0.999995,
            ],
        ),
    ],
)
def test_a_tenth_of_the_draws_at_equal_certified_accuracy(
    sigma: float, quantiles: list[float]
) -> None:
    generator = np.random.default_rng(7)
    levels = np.linspace(0, 1, len(quantiles))
    probabilities = expit(np.interp(generator.uniform(size=30_000), levels, logit(quantiles)))
    smoothing = Smoothing(sigma)
    fixed, _ = _simulate(FixedProcedure(smoothing), probabilities, generator)
    found, draws = _simulate(SequentialProcedure(smoothing, RADII), probabilities, generator)
    assert draws.mean() <= smoothing.noise_samples / 10
    for radius in RADII:
        assert abs((found >= radius).mean() - (fixed >= radius).mean()) <= 0.003


@pytest.mark.parametrize("rate", [0.5, 0.9, 0.998])
@pytest.mark.parametrize("drawn", [1_000, 10_000, 90_000])
def test_seldom_more_succeed_than_was_to_be_expected(rate: float, drawn: int) -> None:
    generator = np.random.default_rng(3)
    left = np.full(20_000, 100_000 - drawn)
    before = generator.binomial(drawn, rate, len(left))
    after = generator.binomial(left, rate)
    most = most_successes(before, np.full_like(before, drawn), left, 0.01)
    assert 0.001 <= np.mean(after > most) <= 0.015


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 5000), st.floats(0, 1), st.floats(0.01, 0.99))
def test_the_confidence_sequence_is_where_the_capital_is_reached(
    drawn: int, share: float, rate: float
) -> None:
    successes = np.array([round(drawn * share)])
    total = np.array([drawn])
    bound = float(lower_bounds(successes, total, 0.001)[0])
    assert bound <= successes[0] / drawn
    capital = float(log_capital(successes, total, rate)[0])
    assert (capital >= -np.log(0.001)) == (rate <= bound) or abs(rate - bound) < 1e-6


def test_capital_is_a_fair_game() -> None:
    # Expected capital after n votes is 1 at the rate that it is bet against, exactly.
    from scipy.stats import binom

    counts = np.arange(41)
    for rate in (0.5, 0.9, 0.999):
        capital = np.exp(log_capital(counts, 40, rate))
        assert float(binom.pmf(counts, 40, rate) @ capital) == pytest.approx(1)


def test_small_budgets_settle_everything() -> None:
    procedure = SequentialProcedure(Smoothing(0.25, 10, 150))
    radii, draws = _simulate(procedure, np.linspace(0, 1, 50), np.random.default_rng(8))
    assert draws.max() <= 150
    assert np.isnan(radii[0])
    assert radii[-1] > 0.25


def test_wrong_radii_are_named() -> None:
    with pytest.raises(InputError, match=r"radii >= 0, at least one; got \[-1.0\]"):
        SequentialProcedure(Smoothing(0.25), (-1.0,))
