"""What a plan says of several workers, and that any worker can measure it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from bench.engines.engine import without_samples
from bench.executors.crew import Question
from bench.executors.hand import Hand
from bench.executors.in_process import InProcess
from bench.executors.parcels import pack_samples
from bench.executors.shipment import pack, unpack
from bench.runs.estimate import Estimate
from bench.runs.evaluation import Evaluation
from bench.runs.planning import MeasuredSample, Prospect, bounds_of
from tests.executors.digits import digits_task

SECONDS = st.floats(0, 1e6)


@given(SECONDS, SECONDS, SECONDS, st.integers(1, 1000))
def test_several_workers_take_between_their_share_and_all_of_it(
    low: float, more: float, share: float, workers: int
) -> None:
    alone = min(share, low + more)  # one sample takes no longer than all
    whole = Estimate(low, low + more, alone)
    found = whole.shared(workers)
    assert whole.shared(1) == whole
    assert found.low == low / workers
    ideal = max(whole.high / workers, alone)
    # Graham: less than twice as long as the best schedule.
    assert ideal * (1 - 1e-9) <= found.high <= min(2 * ideal, whole.high) * (1 + 1e-9)
    hours = Prospect("it", "", found, workers).worker_hours
    assert hours is not None
    assert hours[0] * 3600 == pytest.approx(low)


def test_a_worker_elsewhere_measures_what_it_is_sent(linear_digits: nn.Module) -> None:
    task = digits_task(linear_digits, 6)
    setup = MeasuredSample(Evaluation(), pack_samples(task))
    hand = Hand()
    hand.take(unpack(pack(without_samples(task))), 1)
    assert hand.do(unpack(pack(Question(setup, bounds_of)))).startswith(b"+[")
    low, high, alone = InProcess().ask(without_samples(task), setup, bounds_of)
    assert 0 < low < high
    assert alone > 0
    twice = Estimate(low, high, alone).of(2)
    assert twice == replace(twice, low=2 * low, high=2 * high, alone=alone)
