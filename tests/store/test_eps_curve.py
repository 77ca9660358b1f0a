"""The curve is what one counts radius by radius."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from bench.store.eps_curve import accuracy_at, curve, eps_curve_of
from bench.store.kinds import Columns
from bench.store.tables import Tables

RADII = st.lists(
    st.one_of(st.just(0.0), st.just(math.inf), st.floats(0.001, 1)), min_size=1, max_size=30
)


@given(RADII, st.floats(0, 2))
def test_a_sample_is_right_below_its_smallest_perturbation(radii: list[float], eps: float) -> None:
    smallest = np.array(radii)
    (accuracy,) = accuracy_at(smallest, [eps])
    assert abs(accuracy - np.mean(smallest > eps)) < 1e-12
    steps = curve(smallest)
    assert (np.diff(steps.radii) > 0).all()
    assert (np.diff(steps.accuracy) <= 0).all()
    assert (steps.low <= steps.accuracy).all()
    assert (steps.accuracy <= steps.high).all()
    last = np.searchsorted(steps.radii, eps, side="right") - 1
    assert abs(steps.accuracy[last] - accuracy) < 1e-12
    assert steps.not_broken == sum(map(math.isinf, radii))


@given(RADII)
def test_the_summary_has_the_same_curve(radii: list[float]) -> None:
    empty, none = pd.DataFrame(), pa.schema([])
    tables = Tables(empty, empty, None, Columns(none, none), pd.DataFrame({"radius": radii}))
    found = eps_curve_of(tables, 0.25)
    assert found is not None
    assert dict(found.points)[0.25] == accuracy_at(np.array(radii), [0.25])[0]
    median = math.inf if found.median_radius is None else found.median_radius
    assert np.mean(np.array(radii) <= median) >= 0.5
    assert np.mean(np.array(radii) < median) < 0.5
