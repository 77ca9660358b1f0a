"""Fresh votes contradict a certificate that does not hold, and hardly ever one that does."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.certification.contradiction import FAILURE_PROBABILITY, contradicts, too_many

CLASSES = 4
counts = st.lists(st.integers(0, 250), min_size=CLASSES + 1, max_size=CLASSES + 1).map(np.array)
weights = st.one_of(st.none(), st.floats(0.0, 1.0))


@pytest.mark.parametrize("alpha", [None, 0.6, 1.0])
def test_a_certificate_at_its_limit_is_hardly_ever_contradicted(alpha: float | None) -> None:
    """The certified class has exactly what was proved: half, or the lead that the weight asks."""
    lead = 0.0 if alpha is None else (1 - alpha) / alpha
    share = (1 + lead) / 2
    rng = np.random.default_rng(0)
    votes = rng.multinomial(1000, [share, 1 - share, 0, 0, 0], size=4000)
    false_alarms = sum(contradicts(each, 0, alpha) for each in votes)
    assert false_alarms <= 2 * FAILURE_PROBABILITY * len(votes)


@pytest.mark.parametrize("alpha", [None, 0.6, 0.9, 1.0])
def test_a_certificate_that_does_not_hold_is_contradicted(alpha: float | None) -> None:
    assert contradicts(np.array([400, 600, 0, 0, 0]), 0, alpha)
    assert contradicts(np.array([400, 0, 0, 0, 600]), 0, alpha)  # no answer leads


def test_a_lead_that_decides_alone_is_not_enough_in_a_mix() -> None:
    assert not contradicts(np.array([600, 400, 0, 0, 0]), 0, None)
    assert contradicts(np.array([600, 400, 0, 0, 0]), 0, 0.6)


def test_a_mix_that_gives_votes_no_weight_has_no_certificate() -> None:
    assert contradicts(np.array([1000, 0, 0, 0, 0]), 0, 0.0)


def test_few_errors_are_allowed() -> None:
    assert not too_many(0, 0)
    assert not too_many(1, 12)
    assert too_many(3, 12)
    assert not too_many(3, 12, failure_probability=0.05)


@given(counts, weights, st.integers(1, CLASSES))
def test_a_vote_for_the_class_never_counts_against_it(
    votes: np.ndarray, alpha: float | None, other: int
) -> None:
    if votes[other] == 0:
        return
    more = votes.copy()
    more[0], more[other] = votes[0] + 1, votes[other] - 1
    assert contradicts(votes, 0, alpha) or not contradicts(more, 0, alpha)
