"""What every attack keeps, for every norm."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench.attacks.attack import attack_samples, likeliest_wrong_classes
from bench.attacks.auto_pgd import APGD
from bench.attacks.distances import Norm
from bench.attacks.draws import keyed_draws
from bench.attacks.losses import LOSSES
from bench.attacks.plain import attack_images
from bench.attacks.registry import ATTACKS, AttackPlan, plan_attack
from bench.attacks.state import concatenate, insert, reopen, select
from bench.attacks.tolerance import inside
from bench.errors import InputError
from tests.attacks.networks import (
    linear_network,
    predictions,
    small_network,
    some_images,
)

EPS: dict[Norm, float] = {"Linf": 8 / 255, "L2": 0.4}
BUDGET = {"steps": 12, "targets": 2, "queries": 40}
LARGE = 4.0
"""Times eps: a radius at which every attack must succeed on a linear model."""
STANDARD = [name for name, definition in ATTACKS.items() if definition.need is None]
ON_MIXES = [
    name for name in ATTACKS if plan_attack(name, {}, norm="L2", eps=1, classes=9).view == "mix"
]
EVERY = [(name, norm) for name in STANDARD for norm in EPS]
DRAWING_NOTHING = ("fmn", "fmn-t")
every_attack = pytest.mark.parametrize(("name", "norm"), EVERY)


def plan_for(name: str, norm: Norm, classes: int = 10, scale: float = 1.0) -> AttackPlan:
    budget = {key: BUDGET[key] for key in ATTACKS[name].defaults if key in BUDGET}
    return plan_attack(name, budget, norm=norm, eps=scale * EPS[norm], classes=classes)


def run(plan: AttackPlan, model: Any, images: Tensor, labels: Tensor, **options: Any) -> Any:
    return attack_samples(
        plan.attack,
        model,
        images,
        labels,
        name=plan.name,
        targets=plan.targets,
        restarts=plan.restarts,
        **options,
    )


class RowByRow(nn.Module):
    """A network without matrix products, whose sums are the same in a batch of any size."""

    def __init__(self, inputs: int = 3 * 8 * 8, classes: int = 10) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        self.first = torch.randn(6, inputs, generator=generator) * 0.3
        self.second = torch.randn(classes, 6, generator=generator)

    def forward(self, images: Tensor) -> Tensor:
        hidden = (images.flatten(1).unsqueeze(1) * self.first).sum(dim=2).relu()
        return (hidden.unsqueeze(1) * self.second).sum(dim=2)


def start_items(plan: AttackPlan, model: Any, images: Tensor, labels: Tensor, rows: Tensor) -> Any:
    """First-target items of the samples in `rows`."""
    draws = keyed_draws(9, rows + 1000, plan.name, targets=min(plan.targets, 1))
    targets = likeliest_wrong_classes(model(images), labels, 1)[:, 0]
    return plan.attack.start(images[rows], labels[rows], draws, targets[rows])


def tensors_of(state: Any) -> Iterator[Tensor]:
    for field in dataclasses.fields(state):
        value = getattr(state, field.name)
        if isinstance(value, Tensor):
            yield value
        else:
            yield from tensors_of(value)


@every_attack
def test_fools_a_linear_model_inside_the_ball(name: str, norm: Norm) -> None:
    network, images = linear_network(), some_images(20)
    labels = predictions(network, images)
    plan = plan_for(name, norm, scale=LARGE)
    outcome = run(plan, network, images, labels)
    assert outcome.broken.all()
    assert torch.all(predictions(network, outcome.images) != labels)
    assert inside(outcome.images, images, norm, plan.attack.eps).all()
    assert int(outcome.steps.min()) >= 1


@every_attack
def test_best_images_are_inside_whether_broken_or_not(name: str, norm: Norm) -> None:
    network, images = small_network(), some_images(20)
    labels = predictions(network, images)
    plan = plan_for(name, norm)
    state = start_items(plan, network, images, labels, torch.arange(20))
    for _ in range(plan.attack.steps):
        plan.attack.step(network, state)
        found = plan.attack.images(state)
        assert inside(found, images, norm, plan.attack.eps).all()
        wrong = predictions(network, found) != labels
        assert torch.all(wrong[state.broken])
    assert plan.attack.finished(state).all()
    # Not the clean images: the search moved, and its best point is worth confirming.
    assert torch.any((found - images)[~state.broken] != 0) or bool(state.broken.all())


@every_attack
def test_survivors_come_back_clean_and_wrong_samples_untouched(name: str, norm: Norm) -> None:
    network, images = linear_network(), some_images(6)
    labels = predictions(network, images)
    labels[0] = (labels[0] + 1) % 10
    plan = plan_for(name, norm, scale=1e-6)
    outcome = run(plan, network, images, labels)
    assert not outcome.broken.any()
    assert torch.equal(outcome.images, images)
    expected = plan.items * plan.attack.steps
    assert outcome.steps.tolist() == [0] + [expected] * 5


@every_attack
def test_result_does_not_depend_on_the_batch(name: str, norm: Norm) -> None:
    """Alone, in one batch, in another order, or through a small scheduler: the same bits."""
    network, images = RowByRow(), some_images(14)
    labels = predictions(network, images)
    plan = plan_for(name, norm)
    attack = plan.attack
    alone = []
    for row in range(14):
        state = start_items(plan, network, images, labels, torch.tensor([row]))
        while not bool(attack.finished(state)):
            attack.step(network, state)
        alone.append(state)
    expected = concatenate(alone)
    assert 0 < int(expected.broken.sum()) < 14

    order = torch.randperm(14, generator=torch.Generator().manual_seed(1))
    together = start_items(plan, network, images, labels, order)
    for _ in range(attack.steps):
        attack.step(network, together)
    assert_same(together, select(expected, order))

    assert_same(schedule(plan, network, images, labels, order, places=5), select(expected, order))


def schedule(
    plan: AttackPlan, network: Any, images: Tensor, labels: Tensor, order: Tensor, places: int
) -> Any:
    """Keep a batch of `places` full; items come in `order` and leave when they are finished."""
    waiting = order.tolist()
    inside_now = [waiting.pop(0) for _ in range(places)]
    state = start_items(plan, network, images, labels, torch.tensor(inside_now))
    left: dict[int, Any] = {}
    while len(left) < len(order):
        plan.attack.step(network, state)
        for place in plan.attack.finished(state).nonzero().flatten():
            item = inside_now[place]
            if item not in left:
                left[item] = select(state, place.view(1))
            if waiting:
                inside_now[place] = waiting.pop(0)
                new = torch.tensor([inside_now[place]])
                insert(state, place.view(1), start_items(plan, network, images, labels, new))
    return concatenate([left[item] for item in order.tolist()])


def assert_same(state: Any, expected: Any) -> None:
    assert torch.equal(state.broken, expected.broken)
    assert torch.equal(state.iteration, expected.iteration)
    assert torch.equal(state.best, expected.best)


@every_attack
def test_step_costs_the_passes_that_it_says(name: str, norm: Norm) -> None:
    network, images = small_network(), some_images(4)
    labels = predictions(network, images)
    forward, backward = [], []

    def counting(batch: Tensor) -> Tensor:
        logits: Tensor = network(batch)
        forward.append(len(batch))
        if logits.requires_grad:
            logits.register_hook(lambda gradient: backward.append(len(gradient)))  # type: ignore[no-untyped-call]
        return logits

    plan = plan_for(name, norm)
    state = start_items(plan, network, images, labels, torch.arange(4))
    for _ in range(3):
        plan.attack.step(counting, state)
    passes = plan.attack.passes
    assert len(backward) == 3 * passes.forward_backward
    # Untargeted FAB goes back for each wrong class, from one pass forward.
    ways_back = 9 if name == "fab" else 1
    assert len(forward) == 3 * (passes.forward + passes.forward_backward // ways_back)


@every_attack
def test_step_asks_the_device_for_nothing(name: str, norm: Norm) -> None:
    """On the meta device, where tensors have no values, asking for one is an error."""
    network = linear_network().to("meta")
    images = torch.zeros(4, 3, 8, 8, device="meta")
    labels = torch.zeros(4, dtype=torch.int64, device="meta")
    draws = keyed_draws(0, torch.arange(4), name)
    draws = dataclasses.replace(draws, words=draws.words.to("meta"))
    plan = plan_for(name, norm)
    state = plan.attack.start(images, labels, draws, labels)
    plan.attack.step(network, state)
    assert plan.attack.finished(state).shape == (4,)


@every_attack
def test_state_shares_no_memory(name: str, norm: Norm) -> None:
    network, images = small_network(), some_images(4)
    labels = predictions(network, images)
    targets = (labels + 1) % 10
    plan = plan_for(name, norm)
    draws = keyed_draws(0, torch.arange(4), name)
    state = plan.attack.start(images, labels, draws, targets)
    before = [tensor.data_ptr() for tensor in tensors_of(state)]
    given = [tensor.data_ptr() for tensor in (images, labels, targets)]
    assert len({*before, *given}) == len(before) + 3
    plan.attack.step(network, state)
    assert [tensor.data_ptr() for tensor in tensors_of(state)] == before


@every_attack
def test_memory_layout_of_the_images_does_not_matter(name: str, norm: Norm) -> None:
    network, images = RowByRow(), some_images(5)
    labels = predictions(network, images)
    plan, rows = plan_for(name, norm), torch.arange(5)
    states = [
        start_items(plan, network, given, labels, rows)
        for given in (images, images.to(memory_format=torch.channels_last))
    ]
    for state in states:
        for _ in range(3):
            plan.attack.step(network, state)
    assert_same(*states)


@every_attack
def test_finished_items_stand_still(name: str, norm: Norm) -> None:
    network, images = small_network(), some_images(10)
    labels = predictions(network, images)
    plan = plan_for(name, norm)
    state = start_items(plan, network, images, labels, torch.arange(10))
    for _ in range(plan.attack.steps):
        plan.attack.step(network, state)
    expected = select(state, torch.arange(10))
    for _ in range(2):
        plan.attack.step(network, state)
    assert_same(state, expected)


@every_attack
def test_reopened_item_goes_on(name: str, norm: Norm) -> None:
    network, images = linear_network(), some_images(6)
    labels = predictions(network, images)
    plan = plan_for(name, norm, scale=LARGE)
    state = start_items(plan, network, images, labels, torch.arange(6))
    for _ in range(plan.attack.steps):
        plan.attack.step(network, state)
        if bool(state.broken[2]):
            break
    taken = select(state, torch.tensor([2]))
    assert taken.broken.all()
    iteration = int(taken.iteration)
    reopen(taken, torch.tensor([0]))
    assert not plan.attack.finished(taken).any()
    # The witness that was not one must not stand in the way of the next.
    getattr(taken, "adversarial", taken.best).copy_(images[2:3])
    plan.attack.step(network, taken)
    assert int(taken.iteration) == iteration + 1
    while not bool(plan.attack.finished(taken)):
        plan.attack.step(network, taken)
    assert taken.broken.all()
    assert predictions(network, plan.attack.images(taken)) != labels[2]


@pytest.mark.parametrize("norm", EPS)
def test_reopened_item_of_apgd_goes_on_from_its_highest_loss(norm: Norm) -> None:
    """A misclassified point of lower loss is the item's image while it counts, and no more."""
    images = some_images(1, dtype=torch.float64)
    labels = torch.zeros(1, dtype=torch.int64)
    calls = 0

    def losses_by_call(_: Any, points: Tensor, *__: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Losses 1, 5, 2, 1, ...; the third point is misclassified."""
        nonlocal calls
        calls += 1
        loss = [1.0, 5.0, 2.0][calls - 1] if calls <= 3 else 1.0
        logits = torch.zeros(1, 2, dtype=points.dtype)
        logits[0, int(calls == 3)] = 1
        gradient = torch.full_like(points, (-1.0) ** calls * calls)
        return logits, torch.tensor([loss], dtype=points.dtype), gradient

    attack = APGD(norm, EPS[norm], LOSSES["ce"], steps=10)
    state = attack.start(images, labels, keyed_draws(0, torch.tensor([0]), "apgd-ce"))
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bench.attacks.auto_pgd.loss_and_gradient", losses_by_call)
        while not bool(state.broken):
            seen.append(state.point.clone())
            attack.step(lambda x: x, state)
        assert torch.equal(attack.images(state), seen[2])
        reopen(state, torch.tensor([0]))
        assert torch.equal(attack.images(state), seen[1])
        assert torch.equal(state.best, seen[1])
        assert torch.equal(state.best_gradient, torch.full_like(images, 2))
        assert state.best_loss == 5
        # Since the loss rises no more, a checkpoint brings the search back to that point.
        returned = False
        while not bool(attack.finished(state)):
            attack.step(lambda x: x, state)
            returned |= torch.equal(state.previous, seen[1])
    assert returned


@every_attack
def test_nothing_happens_to_an_item_that_broke(name: str, norm: Norm) -> None:
    """On a GPU it is stepped on until the next look, and goes on if it is not confirmed."""
    network, images = linear_network(), some_images(6)
    labels = predictions(network, images)
    plan = plan_for(name, norm, scale=LARGE)
    state = start_items(plan, network, images, labels, torch.arange(6))
    while not bool(state.broken.any()):
        plan.attack.step(network, state)
    rows = state.broken.nonzero().flatten()
    expected = select(state, rows)
    for _ in range(8):
        plan.attack.step(network, state)
    for field in dataclasses.fields(state):
        before, after = getattr(expected, field.name), getattr(select(state, rows), field.name)
        if isinstance(before, Tensor):
            assert torch.equal(before, after), field.name


@pytest.mark.parametrize(
    ("name", "norm"), [each for each in EVERY if each[0] not in DRAWING_NOTHING]
)
def test_other_seed_and_place_give_other_draws(name: str, norm: Norm) -> None:
    network, images = RowByRow(), some_images(8)
    labels = predictions(network, images)
    plan = plan_for(name, norm, scale=1e-3)

    def last(seed: int, first: int) -> Tensor:
        draws = keyed_draws(seed, torch.arange(first, first + 8), name)
        restarts = torch.ones_like(labels)
        state = plan.attack.start(images, labels, draws, (labels + 1) % 10, restarts)
        plan.attack.step(network, state)
        moved: Tensor = state.point if hasattr(state, "point") else state.best
        return moved

    assert torch.equal(last(1, 0), last(1, 0))
    assert not torch.equal(last(1, 0), last(2, 0))
    assert not torch.equal(last(1, 0), last(1, 3))


@pytest.mark.parametrize("norm", list(EPS))
@pytest.mark.parametrize("name", ["apgd-ce", "apgd-t", "fab", "fab-t"])
def test_a_pixel_without_a_gradient_stops_nothing(name: str, norm: Norm) -> None:
    network, images = linear_network(), some_images(8)
    labels = predictions(network, images)

    def rooted(inputs: Tensor) -> Tensor:
        """The same logits; the first pixel's gradient is 0 / 0."""
        logits: Tensor = network(inputs)
        return logits + 0 * (0 * inputs[:, :1, 0, 0]).sqrt()

    plan = plan_for(name, norm)
    outcomes = [run(plan, model, images, labels) for model in (network, rooted)]
    assert bool(outcomes[0].broken.any())
    assert int(outcomes[1].broken.sum()) == int(outcomes[0].broken.sum())


@pytest.mark.parametrize("shape", [(1, 40, 5), (2, 64, 10), (3, 5, 40)])
@pytest.mark.parametrize("norm", list(EPS))
def test_square_takes_narrow_images(norm: Norm, shape: tuple[int, int, int]) -> None:
    images = torch.rand((4, *shape), generator=torch.Generator().manual_seed(0))

    def model(inputs: Tensor) -> Tensor:
        return torch.stack((inputs.sum(dim=(1, 2, 3)), inputs[:, :, ::2].sum(dim=(1, 2, 3))), dim=1)

    labels = predictions(model, images)
    found = attack_images("square", model, images, labels, norm=norm, eps=0.5, queries=20)
    assert bool(inside(found, images, norm, 0.5).all())


@pytest.mark.parametrize("norm", list(EPS))
def test_plain_function(norm: Norm) -> None:
    network, images = linear_network(), some_images(8)
    labels = predictions(network, images)
    eps = LARGE * EPS[norm]
    chosen: list[tuple[str, dict[str, int]]] = [
        ("apgd-ce", {"steps": 10}),
        ("apgd-t", {"steps": 5, "targets": 2}),
        ("fab-t", {"steps": 5, "targets": 2, "restarts": 2}),
        ("fab", {"steps": 5}),
        ("square", {"queries": 50}),
    ]
    for name, parameters in chosen:
        found = attack_images(name, network, images, labels, norm=norm, eps=eps, **parameters)
        assert torch.all(predictions(network, found) != labels)
        assert inside(found, images, norm, eps).all()
    assert (
        attack_images("square", network, images[:0], labels[:0], norm=norm, eps=eps).shape[0] == 0
    )


@pytest.mark.parametrize("classes", [2, 3, 4])
@pytest.mark.parametrize("norm", list(EPS))
def test_few_classes(classes: int, norm: Norm) -> None:
    network, images = linear_network(classes), some_images(8)
    labels = predictions(network, images)
    for name in STANDARD:
        # All targets: with two of three classes for a label, one may be out of reach.
        budget = {"queries": 200} if name == "square" else {}
        plan = plan_attack(name, budget, norm=norm, eps=LARGE * EPS[norm], classes=classes)
        assert run(plan, network, images, labels).broken.sum() >= 4


def test_start_where_the_last_attack_ended() -> None:
    network, images = small_network(), some_images(4)
    labels = predictions(network, images)
    attack = APGD("Linf", 0.1, LOSSES["ce"])
    points = images + 0.01
    state = attack.start_at(points, images, labels)
    assert torch.equal(state.point, points.clamp(0, 1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": torch.zeros(4, 3, 8, 8, dtype=torch.uint8)}, "floating-point"),
        ({"labels": torch.zeros(3, dtype=torch.int64)}, r"labels \(4,\)"),
        ({"labels": torch.zeros(4)}, "int64 labels"),
        ({"targets": None}, "target classes"),
        ({"targets": torch.zeros(5, dtype=torch.int64)}, r"targets \(4,\)"),
    ],
)
@pytest.mark.parametrize("name", ["apgd-t", "fab-t"])
def test_start_says_what_is_wrong(name: str, change: dict[str, Any], message: str) -> None:
    zeros = torch.zeros(4, dtype=torch.int64)
    arguments = {"images": torch.zeros(4, 3, 8, 8), "labels": zeros, "targets": zeros, **change}
    attack = plan_for(name, "Linf").attack
    with pytest.raises(InputError, match=message):
        attack.start(draws=keyed_draws(0, torch.arange(4), name), **arguments)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("apgd-ce", {"images": 255 * some_images(4)}, r"images in \[0, 1\]"),
        ("apgd-ce", {"labels": torch.full((4,), 10)}, r"labels in \[0, 10\)"),
        ("hinge", {}, "an attack of apgd-ce, .*'hinge'"),
        ("square", {"steps": 3}, "parameters of queries, restarts; got 'steps'"),
        ("apgd-robust", {}, "attack apgd-robust: expected an attack on logits alone, .*mix"),
        ("apgd-ce", {"norm": "L1"}, "Linf or L2 for APGD, got L1; .* L1 are not implemented"),
        ("fab-t", {"norm": "L1"}, "Linf or L2"),
        ("square", {"norm": "L1"}, "Linf or L2"),
        ("square", {"eps": -1.0}, "eps > 0"),
    ],
)
def test_inputs_are_checked(name: str, change: dict[str, Any], message: str) -> None:
    network, images = linear_network(), some_images(4)
    given = {"images": images, "labels": predictions(network, images), "norm": "Linf", "eps": 0.1}
    with pytest.raises(InputError, match=message):
        attack_images(name, network, **(given | change))


def test_square_in_l2_needs_five_rows() -> None:
    network, images = linear_network(side=4), some_images(4)[:, :, :4, :4]
    labels = predictions(network, images)
    with pytest.raises(InputError, match="at least 5 rows"):
        attack_images("square", network, images, labels, norm="L2", eps=9.0)


@pytest.mark.parametrize("norm", list(EPS))
@pytest.mark.parametrize("name", ON_MIXES)
def test_attacks_on_a_mix_stay_in_the_ball_and_fool_a_linear_one(name: str, norm: Norm) -> None:
    network, images = linear_network(), some_images(6)
    labels = predictions(network, images)
    outcome = run(plan_for(name, norm, scale=LARGE), network, images, labels)
    assert outcome.broken.all()
    assert (predictions(network, outcome.images) != labels).all()
    assert inside(outcome.images, images, norm, LARGE * EPS[norm]).all()
    alone = run(plan_for(name, norm), network, images[:1], labels[:1])
    together = run(plan_for(name, norm), network, images, labels)
    assert bool(alone.broken[0]) == bool(together.broken[0])
