"""Attacks by name, and what the reference spends on the same work."""

from __future__ import annotations

from typing import Any

import pytest
from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted
from pyautoattack.fab_pt import FABAttack_PT
from pyautoattack.square import SquareAttack
from torch import Tensor

from bench.attacks import registry
from bench.attacks.attack import Attack, Passes
from bench.attacks.registry import (
    ATTACKS,
    AttackPlan,
    Definition,
    plan_attack,
    register_attack,
)
from bench.attacks.standard import standard_autoattack
from bench.attacks.state import State
from bench.errors import InputError
from tests.attacks.networks import predictions, small_network, some_images


def test_standard_budgets() -> None:
    plans = {plan.name: plan for plan in standard_autoattack("Linf", 8 / 255, classes=10)}
    assert list(plans) == ["apgd-ce", "apgd-t", "fab-t", "square"]
    passes = {name: plan.most_passes for name, plan in plans.items()}
    assert passes == {
        "apgd-ce": Passes(0, 101),
        "apgd-t": Passes(0, 909),
        "fab-t": Passes(900, 900),
        "square": Passes(5001, 0),
    }
    assert [plan.needs_gradient for plan in plans.values()] == [True, True, True, False]
    assert not any(plan.note for plan in plans.values())
    assert plans["apgd-t"].parameters == {
        "steps": 100,
        "targets": 9,
        "restarts": 1,
        "loss": "dlr-targeted",
    }


@pytest.mark.parametrize(
    ("classes", "targets", "loss", "note"),
    [
        (2, 1, "margin-targeted", "loss margin-targeted for dlr-targeted, which needs 4 classes"),
        (3, 2, "margin-targeted", "loss margin-targeted for dlr-targeted, which needs 4 classes"),
        (4, 3, "dlr-targeted", "3 targets for 9: 4 classes"),
        (9, 8, "dlr-targeted", "8 targets for 9: 9 classes"),
        (1000, 9, "dlr-targeted", ""),
    ],
)
def test_few_classes_are_said(classes: int, targets: int, loss: str, note: str) -> None:
    plan = plan_attack("apgd-t", {}, norm="L2", eps=0.5, classes=classes)
    assert plan.targets == plan.items == targets
    assert plan.parameters["targets"] == targets
    assert plan.parameters["loss"] == loss
    assert note in plan.note
    assert bool(plan.note) == bool(note)


@pytest.mark.parametrize(
    ("name", "defaults", "message"),
    [
        ("square", {}, "attack square: expected a name that is free, got that of bench.attacks"),
        ("My attack", {}, "expected an attack's name of small letters, .*; got 'My attack'"),
        ("clean", {}, "other than clean, .*, neighbours, .*; got 'clean'"),
        ("own", {"steps": 0}, "attack own: expected a whole number of at least 1 for steps, got 0"),
    ],
)
def test_wrong_registrations_are_named(name: str, defaults: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        register_attack(name, Definition("own", defaults, ATTACKS["square"].build))
    assert "own" not in ATTACKS


class Offered:
    """What an installed package offers."""

    name, value = "offered", "package:definition"

    def __init__(self, definition: object) -> None:
        self.definition = definition

    def load(self) -> object:
        if isinstance(self.definition, Exception):
            raise self.definition
        return self.definition


@pytest.mark.parametrize(
    ("definition", "message"),
    [
        (3, "entry point offered of bench.attacks: expected a Definition, got int"),
        (ImportError("no module x"), "got ImportError: no module x; repair or remove package:def"),
    ],
)
def test_wrong_entry_points_are_named(
    definition: object, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "entry_points", lambda group: [Offered(definition)])
    with pytest.raises(InputError, match=message):
        registry._discover.__wrapped__()


def test_entry_points_are_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))
    definition = Definition("own", {"queries": 5}, ATTACKS["square"].build)
    monkeypatch.setattr(registry, "entry_points", lambda group: [Offered(definition)])
    registry._discover.__wrapped__()
    assert ATTACKS["offered"] is definition
    plan = plan_attack("offered", {}, norm="L2", eps=0.5, classes=10)
    assert (plan.name, plan.items, plan.attack.steps) == ("offered", 1, 6)


def test_parameters_are_used() -> None:
    plan = plan_attack(
        "apgd-t", {"steps": 7, "targets": 3, "restarts": 2}, norm="L2", eps=0.5, classes=10
    )
    assert plan.most_passes == Passes(0, 3 * 2 * 8)


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("pgd", {}, "expected an attack of apgd-ce, .*; got 'pgd'"),
        ("square", {"steps": 3}, "square: expected parameters of queries, restarts; got 'steps'"),
        (
            "square",
            {"queries": 0},
            "square: expected a whole number of at least 1 for queries, got 0",
        ),
        (
            "fab-t",
            {"targets": "9"},
            "fab-t: expected a whole number of at least 1 for targets, got '9'",
        ),
        (
            "fab-t",
            {"restarts": True},
            "fab-t: expected a whole number of at least 1 for restarts, got True",
        ),
    ],
)
def test_wrong_choices_are_named(name: str, parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        plan_attack(name, parameters, norm="Linf", eps=0.1, classes=10)


def test_one_class_cannot_be_attacked() -> None:
    with pytest.raises(InputError, match="at least 2 classes"):
        plan_attack("apgd-ce", {}, norm="Linf", eps=0.1, classes=1)


def test_descriptions_are_one_line() -> None:
    for definition in ATTACKS.values():
        assert "\n" not in definition.description
        assert len(definition.description) < 90


class Counter:
    """A model that counts what passes through it."""

    def __init__(self) -> None:
        self.network = small_network()
        self.forward = 0
        self.backward = 0

    def __call__(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images)
        self.forward += len(images)
        if logits.requires_grad:
            logits.register_hook(self._back)  # type: ignore[no-untyped-call]
        return logits

    def _back(self, gradient: Tensor) -> None:
        self.backward += len(gradient)


@pytest.mark.parametrize(
    "name",
    [name for name, each in ATTACKS.items() if not each.need and not name.startswith("fmn")],
)
def test_passes_of_the_reference(name: str) -> None:
    images = some_images(12)
    labels = predictions(small_network(), images)
    model, rounds, asked = Counter(), [], 0
    options = {"norm": "Linf", "eps": 0.02, "seed": 0}
    if name == "square":
        attack: Any = SquareAttack(model, n_queries=30, resc_schedule=False, **options)
    elif name in ("fab", "fab-t"):
        targeted = name == "fab-t"
        attack = FABAttack_PT(model, n_iter=6, targeted=targeted, n_target_classes=3, **options)
    elif name == "apgd-t":
        attack = APGDAttack_targeted(model, n_iter=6, n_target_classes=3, **options)
    else:
        attack = APGDAttack(model, n_iter=6, loss=name.removeprefix("apgd-"), **options)
    original = attack.attack_single_run

    def counted_run(x: Tensor, *args: Any, **kwargs: Any) -> Any:
        nonlocal asked
        rounds.append(len(x))
        result = original(x, *args, **kwargs)
        asked += int(result[0].sum()) if name == "square" else 0
        return result

    attack.attack_single_run = counted_run
    adversarial = attack.perturb(images.clone(), labels.clone())
    model(adversarial)

    budget = {"steps": 6, "targets": 3, "queries": 30}
    chosen = {key: value for key, value in budget.items() if key in ATTACKS[name].defaults}
    plan = plan_attack(name, chosen, norm="Linf", eps=0.02, classes=10)
    passes = plan.reference_passes(rounds, queries=asked)
    assert model.backward == passes.forward_backward
    # Untargeted FAB takes a gradient for each class from one pass forward.
    gradients_a_pass = 10 if name == "fab" else 1
    assert model.forward == passes.forward + passes.forward_backward // gradients_a_pass


def test_passes_of_an_attack_that_the_reference_has_not_are_its_own() -> None:
    class Guess(Attack[State]):
        steps = 7
        passes = Passes(forward=2, forward_backward=3)

        def start(self, *_: Any) -> State:
            raise NotImplementedError

        def step(self, *_: Any) -> State:
            raise NotImplementedError

    plan = AttackPlan("guess", Guess(), targets=0, restarts=2, parameters={}, note="")
    assert plan.reference_passes([10, 4], queries=50) == Passes(14 * 7 * 2, 14 * 7 * 3)
    assert plan.reference_passes([1, 1]) == plan.most_passes
