"""Certificates of mixes from votes: sound bounds, and what the accurate base may still decide."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.certify.bounds import vote_bounds
from bench.certify.mix import smoothing_radius
from bench.certify.mixed_vote import MixedVote
from bench.certify.smoothing import FixedProcedure, Smoothing
from bench.certify.votes import ABSTAINED

SMOOTHING = Smoothing(0.5, 10, 1_000, 0.001)


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
    bounds = vote_bounds(np.array([votes]), np.array([prediction]), 0.001)
    lead = bounds.right[0] - bounds.others[0].max()
    assert alpha * lead >= (1 - alpha) * (1 - 1e-9)
    assert radius == smoothing_radius(bounds.right, bounds.others, alpha, 0.5)[0]


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
