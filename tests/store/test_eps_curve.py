"""The curve is what one counts radius by radius."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.store.eps_curve import accuracy_at, curve, eps_curve_of, falling_radii
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
    index = range(len(radii))
    samples = pd.DataFrame({"index": index, "robust": [radius > 0.25 for radius in radii]})
    smallest = pd.DataFrame({"index": index, "radius": radii})
    tables = Tables(samples, empty, None, Columns(none, none), smallest)
    found = eps_curve_of(tables, 0.25)
    assert found is not None
    assert dict(found.points)[0.25] == accuracy_at(np.array(radii), [0.25])[0]
    median = math.inf if found.median_radius is None else found.median_radius
    assert np.mean(np.array(radii) <= median) >= 0.5
    assert np.mean(np.array(radii) < median) < 0.5


@given(RADII, st.data())
def test_the_curve_passes_through_the_robust_accuracy(
    radii: list[float], data: st.DataObject
) -> None:
    """Also where the candidate failed on samples, which are not robust and have no image."""
    eps, n = 0.25, len(radii)
    failed = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    robust = (np.array(radii) > eps) & ~(np.isinf(radii) & failed)
    smallest = pd.DataFrame({"index": range(n), "radius": radii})
    order = np.array(data.draw(st.permutations(range(n))))
    samples = pd.DataFrame({"index": order, "robust": robust[order]})
    found = falling_radii(smallest, samples, eps)
    assert accuracy_at(found, [eps])[0] == pytest.approx(robust.mean())
    assert accuracy_at(found, [0.0])[0] == pytest.approx(np.mean(np.array(radii) > 0))
