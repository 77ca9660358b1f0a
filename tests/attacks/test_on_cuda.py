"""What attacks ask of a GPU; on a pretend one, so that every machine can say."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bench.attacks import replay
from bench.attacks.attack import attack_samples, likeliest_wrong_classes
from bench.attacks.distances import Norm
from bench.attacks.draws import keyed_draws
from bench.attacks.registry import ATTACKS, plan_attack
from bench.attacks.replay import CALLS_BEFORE_RECORDING
from bench.attacks.state import tensors_of
from tests.attacks.launches import asked_by_steps
from tests.attacks.networks import predictions, small_network, some_images
from tests.pretend_cuda import PretendCuda

STEPS = 2 * CALLS_BEFORE_RECORDING + 4
"""Enough for the last part of a step to be replayed: its inputs stay where they are only once the
part before it is replayed."""

LAUNCHES = {
    "apgd-ce": (97, 5),
    "apgd-t": (124, 5),
    "fab-t": (157, 7),
    "square": (135, 3),
    "fmn": (94, 5),
    "apgd-alpha-t": (138, 7),
    "apgd-mix-margin": (111, 8),
}
"""At most so many launches a step besides the model's: of the first steps, and of those that are
replayed."""


def stepped(name: str, norm: Norm, steps: int) -> list[Tensor]:
    """Return the state after so many steps of an attack on a small network, without a wait."""
    images = some_images(4)
    labels = predictions(small_network(), images)
    plan = plan_attack(name, {}, norm=norm, eps=0.1, classes=10)
    with PretendCuda() as cuda:
        network, images, labels = small_network().to("cuda"), images.to("cuda"), labels.to("cuda")
        draws = keyed_draws(9, torch.arange(4), name, targets=min(plan.targets, 1))
        targets = likeliest_wrong_classes(network(images), labels, 1)[:, 0]
        state = plan.attack.start(images, labels, draws.to(images.device), targets)
        # The first step may put tables on the device.
        plan.attack.step(network, state)
        cuda.syncs.clear()
        for _ in range(steps):
            plan.attack.step(network, state)
        assert not cuda.syncs
        assert not plan.attack.replay_problem
        assert state.iteration.cpu().max() == 1 + steps or state.broken.cpu().all()
        return [each.cpu() for each in tensors_of(state)]


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("name", [name for name in ATTACKS if name not in LAUNCHES])
def test_no_step_waits_for_the_device(name: str, norm: Norm) -> None:
    stepped(name, norm, 4)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("name", LAUNCHES)
def test_no_replayed_step_waits_or_changes_anything(
    name: str, norm: Norm, monkeypatch: pytest.MonkeyPatch
) -> None:
    replayed = stepped(name, norm, STEPS)
    monkeypatch.setattr(replay, "CALLS_BEFORE_RECORDING", STEPS + 1)
    for ours, theirs in zip(replayed, stepped(name, norm, STEPS), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("name", LAUNCHES)
def test_steps_take_few_launches(name: str, norm: Norm) -> None:
    attack = plan_attack(name, {}, norm=norm, eps=0.1, classes=10).attack
    images = some_images(2)
    first, later = LAUNCHES[name]
    assert asked_by_steps(attack, images, before=1, steps=1).launches.total() <= first
    asked = asked_by_steps(attack, images, before=STEPS, steps=8)
    assert asked.launches.total() <= 8 * later
    assert not asked.waits
    assert not asked.copied


def test_a_plain_loop_asks_once_in_eight_steps() -> None:
    images = some_images(6)
    labels = predictions(small_network(), images)
    attack = plan_attack("apgd-ce", {"steps": 23}, norm="Linf", eps=0.02, classes=10).attack
    expected = attack_samples(attack, small_network(), images, labels, name="apgd-ce")
    with PretendCuda() as cuda:
        network = small_network().to("cuda")
        found = attack_samples(
            attack, network, images.to("cuda"), labels.to("cuda"), name="apgd-ce"
        )
        asked = {place: n for (_, place), n in cuda.syncs.items()}
        assert max(n for place, n in asked.items() if place.startswith("attacks/attack.py")) == 3
        assert torch.equal(found.steps.cpu(), expected.steps)
        assert torch.equal(found.broken.cpu(), expected.broken)
