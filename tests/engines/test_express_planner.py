"""The planner of express evaluations, without a model: samples are numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.engines.express_planner import ARMS_FOR_ALL, Arm, Planner, Pull

ARMS = (Arm("first", 30.0), Arm("near", 60.0), Arm("far", 100.0), Arm("long", 150.0))


class World:
    """Samples that break when an arm's strength exceeds their margin."""

    def __init__(self, samples: int, seed: int, strengths: tuple[float, ...]) -> None:
        generator = np.random.default_rng(seed)
        self.right = generator.random(samples) < 0.9
        self.hardness = generator.exponential(0.5, samples)
        self.luck = generator.normal(0, 0.05, (len(strengths), samples))
        self.strengths = strengths

    def breaks(self, pull: Pull) -> np.ndarray:
        luck = self.luck[pull.arm, pull.rows]
        return np.asarray(self.hardness[pull.rows] + luck < self.strengths[pull.arm])

    def margins(self, pull: Pull) -> dict[int, tuple[float, float]]:
        left = np.clip(self.hardness[pull.rows] - 0.2, 0, 1)
        return {int(row): (-1.0, -float(each)) for row, each in zip(pull.rows, left, strict=True)}


def planner(world: World, budget: float = 1e9, most_rows: int = 32) -> Planner:
    return Planner(
        arms=ARMS,
        samples=len(world.right),
        standing=world.right.copy(),
        budget=budget,
        goal=0.0005 * len(world.right),
        most_rows=most_rows,
    )


def played(world: World, plan: Planner) -> list[Pull]:
    """Pull until the planner ends."""
    pulls = []
    while (pull := plan.next_pull()) is not None:
        plan.learn(pull, world.breaks(pull), world.margins(pull))
        pulls.append(pull)
    return pulls


worlds = st.builds(
    World,
    samples=st.integers(0, 300),
    seed=st.integers(0, 10_000),
    strengths=st.tuples(*[st.floats(0.0, 0.6)] * len(ARMS)),
)


@given(worlds, st.integers(1, 64))
@settings(max_examples=60, deadline=None)
def test_no_sample_is_pulled_twice_by_an_arm_or_after_it_broke(world: World, rows: int) -> None:
    plan = planner(world, most_rows=rows)
    done: set[tuple[int, int]] = set()
    standing = set(world.right.nonzero()[0].tolist())
    while (pull := plan.next_pull()) is not None:
        pairs = {(pull.arm, row) for row in pull.rows.tolist()}
        assert pairs
        assert not pairs & done
        assert set(pull.rows.tolist()) <= standing
        done |= pairs
        broken = world.breaks(pull)
        plan.learn(pull, broken, world.margins(pull))
        standing -= set(pull.rows[broken].tolist())
    assert standing == set(plan.standing.nonzero()[0].tolist())


@given(worlds)
@settings(max_examples=30, deadline=None)
def test_the_budget_is_kept_up_to_one_sample(world: World) -> None:
    plan = planner(world, budget=200.0)
    while (pull := plan.next_pull()) is not None:
        budget = 200.0 * plan.standing.sum()
        plan.learn(pull, world.breaks(pull), world.margins(pull))
        assert pull.arm < ARMS_FOR_ALL or plan.spent < budget + plan.arms[pull.arm].cost


@given(worlds)
@settings(max_examples=30, deadline=None)
def test_an_interrupted_plan_goes_on_as_it_would_have(world: World) -> None:
    whole = played(world, planner(world))
    again = planner(world)
    for pull in whole[: len(whole) // 2]:
        again.learn(pull, world.breaks(pull), world.margins(pull))
    rest = played(world, again)
    assert [(each.arm, each.rows.tolist()) for each in rest] == [
        (each.arm, each.rows.tolist()) for each in whole[len(whole) // 2 :]
    ]


def test_samples_that_came_near_are_pulled_first() -> None:
    world = World(200, 3, (0.3, 0.4, 0.4, 0.4))
    plan = planner(world, most_rows=16)
    for _ in range(ARMS_FOR_ALL):
        everything = plan.next_pull()
        assert everything is not None
        assert everything.rows.tolist() == plan.standing.nonzero()[0].tolist()
        plan.learn(everything, world.breaks(everything), world.margins(everything))
    second = plan.next_pull()
    assert second is not None
    others = np.setdiff1d(plan.standing.nonzero()[0], second.rows)
    assert np.nanmax(plan.left[second.rows]) <= np.nanmin(plan.left[others]) + 1e-9


def test_an_arm_of_another_kind_is_tried_although_little_seems_left() -> None:
    world = World(200, 3, (0.3, 0.3, 0.3, 0.6))
    plan = planner(world, most_rows=16)
    plan.arms = [*ARMS[:3], replace(ARMS[3], tried=True)]
    plan.goal = 1e9
    assert [each.arm for each in played(world, plan)] == [0, 1, 3]


def test_what_is_left_lies_in_the_interval() -> None:
    """Where arms are about as strong as each other, which the estimate takes for granted."""
    inside = 0
    for seed in range(60):
        world = World(400, seed, (0.25, 0.25, 0.25, 0.25))
        plan = planner(world, budget=120.0 + seed)
        played(world, plan)
        left = plan.remaining()
        strengths = np.array(world.strengths)[:, None]
        would = plan.standing & (world.hardness + world.luck < strengths).any(axis=0)
        inside += left.low <= would.sum() <= left.high
    assert inside >= 0.9 * 60


def test_nothing_that_stands_leaves_nothing() -> None:
    world = World(0, 0, (0.1, 0.1, 0.1, 0.1))
    plan = planner(world)
    assert plan.next_pull() is None
    assert plan.remaining().expected == 0
    assert not len(plan.nearest_and_others(5))
