"""The projections against solvers that share nothing with them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import brentq, linprog

from bench.attacks.distances import Norm, norms
from bench.attacks.projections import fill_threshold, onto_ball_, onto_box_, onto_hyperplane

Array = NDArray[np.float64]


def solve_linf(point: Array, normal: Array, offset: float) -> float | None:
    """Smallest ||d||_inf with <w, x + d> = b and 0 <= x + d <= 1, as a linear program."""
    size = len(point)
    cost = np.r_[np.zeros(size), 1.0]
    below = np.c_[np.eye(size), -np.ones(size)]
    above = np.c_[-np.eye(size), -np.ones(size)]
    bounds = [*zip(-point, 1 - point, strict=True), (0, None)]
    solution = linprog(
        cost,
        A_ub=np.r_[below, above],
        b_ub=np.zeros(2 * size),
        A_eq=np.r_[normal, 0.0][None],
        b_eq=[-offset],
        bounds=bounds,
    )
    return float(solution.fun) if solution.success else None


def solve_l2(point: Array, normal: Array, offset: float) -> Array:
    """The nearest d, from the dual: d = clip(-m w, -x, 1 - x) for the right multiplier m."""

    def way(multiplier: float) -> Array:
        clipped: Array = np.clip(-multiplier * normal, -point, 1 - point)
        return clipped

    def miss(multiplier: float) -> float:
        return float(normal @ way(multiplier) + offset)

    far = 10 * np.sign(offset) / np.abs(normal[np.abs(normal) > 0]).min()
    return way(float(brentq(miss, 0, far, xtol=1e-15, rtol=1e-15)))


coordinate = st.sampled_from([0.0, 1.0]) | st.floats(0, 1, width=32)
slope = st.sampled_from([0.0, 1.0, -1.0]) | st.floats(-3, 3, width=32).filter(
    lambda value: abs(value) > 1e-3
)


@st.composite
def problems(draw: st.DrawFn) -> tuple[Array, Array, float]:
    size = draw(st.integers(1, 7))
    point = np.array(draw(st.lists(coordinate, min_size=size, max_size=size)))
    normal = np.array(draw(st.lists(slope, min_size=size, max_size=size)))
    return point, normal, draw(st.floats(-4, 4).filter(lambda value: abs(value) > 1e-6))


def reachable(point: Array, normal: Array, offset: float) -> float:
    """How far <w, x> can be brought towards b."""
    towards = np.where(normal * np.sign(offset) > 0, point, 1 - point)
    return float(np.abs(normal) @ towards)


def run(point: Array, normal: Array, offset: float, norm: str) -> Array:
    way = onto_hyperplane(
        torch.tensor(point)[None],
        torch.tensor(normal)[None],
        torch.tensor([offset], dtype=torch.float64),
        norm,  # type: ignore[arg-type]
    )
    result: Array = way[0].numpy()
    return result


@settings(max_examples=150, deadline=None)
@given(problems())
def test_linf_way_is_shortest(problem: tuple[Array, Array, float]) -> None:
    point, normal, offset = problem
    way = run(point, normal, offset, "Linf")
    assert np.all(point + way >= -1e-12)
    assert np.all(point + way <= 1 + 1e-12)
    room = reachable(point, normal, offset)
    if room > abs(offset) + 1e-9:
        assert normal @ way == pytest.approx(-offset, abs=1e-9)
        assert np.abs(way).max() == pytest.approx(solve_linf(point, normal, offset), abs=1e-7)
    elif room < abs(offset) - 1e-9:
        assert abs(normal @ way) == pytest.approx(room, abs=1e-9)


@settings(max_examples=150, deadline=None)
@given(problems())
def test_l2_way_is_shortest(problem: tuple[Array, Array, float]) -> None:
    point, normal, offset = problem
    way = run(point, normal, offset, "L2")
    assert np.all(point + way >= -1e-12)
    assert np.all(point + way <= 1 + 1e-12)
    room = reachable(point, normal, offset)
    if room > abs(offset) + 1e-6:
        assert normal @ way == pytest.approx(-offset, abs=1e-9)
        np.testing.assert_allclose(way, solve_l2(point, normal, offset), atol=1e-6)
    elif room < abs(offset) - 1e-9:
        assert abs(normal @ way) == pytest.approx(room, abs=1e-9)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_float32_reaches_the_hyperplane(norm: Norm) -> None:
    generator = torch.Generator().manual_seed(0)
    points = (1.4 * torch.rand(50, 3072, generator=generator) - 0.2).clamp(0, 1)
    normals = torch.randn(50, 3072, generator=generator)
    offsets = torch.linspace(-1, 1, 50) * 20
    way = onto_hyperplane(points, normals, offsets, norm)  # type: ignore[arg-type]
    reached = (normals.double() * way.double()).sum(dim=1)
    scale = normals.abs().sum(dim=1).double()
    assert float(((reached + offsets) / scale).abs().max()) < 1e-7
    exact = onto_hyperplane(points.double(), normals.double(), offsets.double(), norm)  # type: ignore[arg-type]
    torch.testing.assert_close(way.double(), exact, rtol=1e-4, atol=1e-6)


def test_threshold_takes_one_breakpoint_at_a_time_where_it_must() -> None:
    """Weights and limits that make every Newton step saturate a single coordinate."""
    size = 60
    limits = 2.0 ** -torch.arange(size, dtype=torch.float64)
    weights = 8.0 ** torch.arange(size, dtype=torch.float64)
    wanted = (weights * limits).sum() * (1 - 1e-9)
    threshold = fill_threshold(weights[None], limits[None], wanted[None])
    gained = (weights * torch.minimum(limits, threshold)).sum()
    assert float(gained / wanted) == pytest.approx(1, rel=1e-9)


def test_nothing_to_do_and_nothing_to_go_by() -> None:
    points = torch.rand(3, 5, generator=torch.Generator().manual_seed(0))
    for norm in ("Linf", "L2"):
        still = onto_hyperplane(points, torch.ones(3, 5), torch.zeros(3), norm)
        assert torch.equal(still, torch.zeros(3, 5))
        flat = onto_hyperplane(points, torch.zeros(3, 5), torch.ones(3), norm)
        assert torch.equal(flat, torch.zeros(3, 5))


def test_missing_numbers_end_the_search() -> None:
    normals = torch.full((2, 4), float("nan"))
    onto_hyperplane(torch.rand(2, 4), normals, torch.ones(2), "Linf")


def test_box_and_ball() -> None:
    generator = torch.Generator().manual_seed(0)
    centres = torch.rand(9, 3, 4, 4, generator=generator)
    points = centres + torch.randn(9, 3, 4, 4, generator=generator)
    boxed = onto_box_(points.clone(), (centres - 0.1).clamp(0), (centres + 0.1).clamp(max=1))
    assert float(norms(boxed - centres, "Linf").max()) <= 0.1 + 1e-7
    scaled = onto_ball_(points.clone(), centres, 0.5)
    assert float(norms(scaled - centres, "L2").max()) <= 0.5 + 1e-6
    near = centres + 1e-3 * (points - centres)
    torch.testing.assert_close(onto_ball_(near.clone(), centres, 9.0), near.clamp(0, 1))
