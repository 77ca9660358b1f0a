"""Bets against "at least so many ones": valid at every look, whatever is predicted."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bench.errors import InputError
from bench.statistics.betting import Round, anytime_bounds, capital, unexplained

SIZE = 5


def drawn(units: list[int], ones: np.ndarray, cut: int) -> list[Round]:
    """Return draws in two rounds."""
    parts = [np.array(part, dtype=np.int64) for part in (units[:cut], units[cut:])]
    return [Round(part, ones[part].astype(bool)) for part in parts]


@settings(max_examples=15, deadline=None)
@given(
    ones=st.lists(st.booleans(), min_size=SIZE, max_size=SIZE),
    scores=st.none() | st.lists(st.floats(-3, 3), min_size=SIZE, max_size=SIZE),
    cut=st.integers(1, SIZE - 1),
    less=st.integers(0, 2),
    horizon=st.sampled_from([3, 400]),
)
@example([False, False, True, True, False], [1.0, 1.0, 0.0, 0.0, 0.0], 1, 0, 3)
def test_true_claims_gain_nothing_on_average(
    ones: list[bool], scores: list[float] | None, cut: int, less: int, horizon: int
) -> None:
    """The mean over all orders of the draw is at most 1 after each draw."""
    truth = np.array(ones)
    claimed = max(int(truth.sum()) - less, 0)
    known = None if scores is None else np.array(scores)
    money = [
        np.exp(capital(claimed, SIZE, drawn(list(order), truth, cut), known, horizon))
        for order in itertools.permutations(range(SIZE))
    ]
    assert (np.mean(money, axis=0) <= 1 + 1e-9).all()


@settings(max_examples=30, deadline=None)
@given(
    ones=st.lists(st.booleans(), min_size=12, max_size=12),
    more=st.lists(st.booleans(), min_size=12, max_size=12),
    claimed=st.integers(0, 20),
)
def test_an_attack_that_fails_only_lowers_the_capital(
    ones: list[bool], more: list[bool], claimed: int
) -> None:
    units = np.arange(12)
    scores = np.linspace(-1, 1, 20)
    few, many = np.array(ones), np.array(ones) | np.array(more)
    low, high = (capital(claimed, 20, [Round(units, each)], scores) for each in (many, few))
    assert (low <= high + 1e-9).all()


def test_what_cannot_be_is_refuted_for_certain() -> None:
    broken = Round(np.arange(6), np.zeros(6, dtype=bool))
    assert capital(5, 10, [broken])[-1] == math.inf
    assert capital(4, 10, [broken])[-1] < math.inf


@pytest.mark.parametrize("knows", [True, False])
def test_predictions_sharpen_the_bounds(knows: bool) -> None:
    generator = np.random.default_rng(0)
    scores = generator.standard_normal(2000)
    ones = scores + 0.4 * generator.standard_normal(2000) > 0
    order = generator.permutation(2000)[:400]
    rounds = [Round(part, ones[part]) for part in np.split(order, 4)]
    low, high = anytime_bounds(2000, rounds, scores if knows else None)
    assert low <= ones.sum() <= high
    assert (high - low < 200) == knows
    assert unexplained(2000, rounds, scores) < 0.12
    assert unexplained(2000, rounds) > 0.2


def test_a_whole_population_leaves_no_doubt() -> None:
    ones = np.array([True] * 7 + [False] * 13)
    order = np.random.default_rng(1).permutation(20)
    rounds = [Round(part, ones[part]) for part in np.split(order, 2)]
    assert anytime_bounds(20, rounds) == (7, 7)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"claimed": -1}, "claimed >= 0"),
        ({"level": 1.0}, "level in"),
        ({"scores": np.zeros(3)}, "finite scores"),
        ({"rounds": [Round(np.array([1, 1]), np.array([True, True]))]}, "drawn twice"),
        ({"rounds": [Round(np.array([9]), np.array([True]))]}, r"in \[0, 3\]"),
    ],
)
def test_wrong_arguments_are_refused(change: dict[str, object], message: str) -> None:
    arguments: dict[str, object] = {"claimed": 2, "population": 4, "rounds": []}
    with pytest.raises(InputError, match=message):
        capital(**(arguments | change))  # type: ignore[arg-type]
