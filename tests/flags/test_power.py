"""Planted weaknesses: what they do is known, good attacks find them, and poor ones are told on."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from bench.attacks import inside
from bench.attacks.registry import Norm
from bench.candidates.registry import find_candidates
from bench.engines import AttackTask
from bench.engines.fast import FastEngine
from bench.engines.prediction import decide
from bench.flags import planted
from bench.flags.planted import PlantError, back_door, furthest, saturated_logits, unusual_pattern
from bench.flags.power import attack_power, power_flag
from bench.runs.session import make_plan
from bench.runs.settings import Settings
from bench.store.power import AttackPower
from bench.suites import ThreatModel, load_suite
from bench.suites.suite import AttackChoice
from tests.flags import defences

N = 40


def robust_task(suite: str = "digits-linf", candidate: str = "digits-robust") -> AttackTask:
    """The task of an express run of a shipped submission."""
    definition = load_suite(suite)
    (reference,) = find_candidates((candidate,), definition, None, trust_code=False)
    chosen = Settings(definition, n_examples=N, protocol="express")
    task = make_plan(reference.load(), defences.data.load("digits").first(N), chosen).task
    assert isinstance(task, AttackTask)
    return task


@pytest.fixture(scope="module")
def measured() -> AttackPower:
    return attack_power(robust_task())


def test_express_finds_what_is_planted_in_an_honest_robust_network(measured: AttackPower) -> None:
    assert power_flag(measured) is None
    by_name = {plant.name: plant for plant in measured.plants}
    masking = ("quantized-input", "saturated-logits", "noisy-input")
    assert {by_name[name].outcome for name in masking} == {"found"}
    assert by_name["saturated-logits"].found_by == "attacks"
    assert "stopped-gradients" in by_name["quantized-input"].flags
    assert "randomized" in by_name["noisy-input"].flags
    assert by_name["back-door"].outcome in {"found", "partly"}


def test_a_crippled_suite_misses_what_is_planted_and_says_so() -> None:
    one_step = AttackChoice(name="apgd-ce", parameters={"steps": 1})
    task = replace(robust_task(), attacks=(one_step,))
    power = attack_power(task, FastEngine())
    outcomes = {plant.name: plant.outcome for plant in power.plants}
    assert outcomes["back-door"] == "missed"
    flag = power_flag(power)
    assert flag is not None
    assert "back-door (" in str(flag.measured)
    assert "fast" in flag.meaning


def test_own_attacks_follow_on_what_the_others_leave() -> None:
    one_step = AttackChoice(name="apgd-ce", parameters={"steps": 1})
    targeted = AttackChoice(name="apgd-t", parameters={"steps": 20, "targets": 9})
    task = replace(robust_task(), attacks=(targeted,))

    class OneStep(FastEngine):
        def run(self, task, finished, report):  # type: ignore[no-untyped-def]
            return super().run(replace(task, attacks=(one_step,)), finished, report)

    alone, helped = (attack_power(task, OneStep(), own).plants[-1] for own in (None, FastEngine()))
    assert alone.outcome == "missed"
    assert (helped.outcome, helped.found_by) == ("found", "attacks")


def test_one_seed_gives_one_result(measured: AttackPower, monkeypatch: pytest.MonkeyPatch) -> None:
    noisy = measured.plants[2]
    monkeypatch.setattr(
        "bench.flags.power.PLANTS", (_refused, _refused, planted.noisy_input, _refused)
    )
    with torch.random.fork_rng():
        torch.manual_seed(7)
        assert attack_power(robust_task()).plants[2] == noisy


def _refused(task: AttackTask, samples: AttackTask) -> planted.Plant:
    raise PlantError("not this time")


@settings(max_examples=10, deadline=None)
@given(norm=st.sampled_from(["Linf", "L2"]), eps=st.floats(0.05, 1.0), seed=st.integers(0, 2**32))
def test_a_back_door_opens_inside_the_ball_and_not_on_clean_images(
    norm: Norm, eps: float, seed: int
) -> None:
    task = replace(
        robust_task(), threat_model=ThreatModel(norm=norm, eps=eps), seed=seed, batch_size=64
    )
    witnesses = furthest(task.images, unusual_pattern(task.images, seed), task)
    assert bool(inside(witnesses, task.images, norm, eps).all())
    try:
        plant = back_door(task, task)
    except PlantError:
        return
    assert plant.witnesses is not None
    changed = replace(task, module=plant.module)
    assert torch.equal(decide(changed, task.images), decide(task, task.images))
    turned = decide(changed, plant.witnesses) != decide(task, task.images)
    assert float(turned.float().mean()) > 0.5


def test_saturated_logits_have_no_gradient_of_cross_entropy() -> None:
    task = robust_task()
    module = saturated_logits(task, task).module
    images = task.images.clone().requires_grad_()
    loss = nn.functional.cross_entropy(module(images), task.labels)
    (gradient,) = torch.autograd.grad(loss, images)
    gone = (gradient.flatten(1) == 0).all(dim=1)
    assert float(gone.float().mean()) > 0.4
    assert torch.equal(module(task.images).argmax(1), task.module(task.images).argmax(1))


def test_what_cannot_be_measured_says_why() -> None:
    task = robust_task()
    assert "randomized" in attack_power(replace(task, randomized=True)).reason
    assert "no attacks" in attack_power(replace(task, attacks=())).reason
    constant = defences.Defence(task.module, after=lambda logits: 0 * logits)
    assert "right without attack" in attack_power(replace(task, module=constant)).reason
    hidden = defences.Defence(task.module, before=defences.quantized)
    assert "escalates without a plant" in attack_power(replace(task, module=hidden)).reason


def test_a_plant_that_cannot_be_made_is_untested(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.flags.power.PLANTS", (planted.saturated_logits, back_door))
    task = replace(robust_task(), threat_model=ThreatModel(norm="Linf", eps=1e-4))
    scaled = replace(task, module=defences.Defence(task.module, after=lambda logits: 1e4 * logits))
    power = attack_power(scaled, own=FastEngine())
    assert [plant.outcome for plant in power.plants] == ["untested", "untested"]
    assert all(plant.reason for plant in power.plants)
    assert power_flag(power) is None
