"""What attacks ask of a GPU; on a pretend one, so that every machine can say."""

from __future__ import annotations

import pytest
import torch

from bench.attacks.attack import attack_samples, likeliest_wrong_classes
from bench.attacks.distances import Norm
from bench.attacks.draws import keyed_draws
from bench.attacks.registry import ATTACKS, plan_attack
from tests.attacks.networks import predictions, small_network, some_images
from tests.pretend_cuda import PretendCuda

STEPS = 4


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("name", ATTACKS)
def test_no_step_waits_for_the_device(name: str, norm: Norm) -> None:
    images = some_images(4)
    labels = predictions(small_network(), images)
    plan = plan_attack(name, {}, norm=norm, eps=0.1, classes=10)
    with PretendCuda() as cuda:
        network, images, labels = small_network().to("cuda"), images.to("cuda"), labels.to("cuda")
        indices = torch.arange(4, device="cuda")
        draws = keyed_draws(9, indices, name, targets=min(plan.targets, 1))
        targets = likeliest_wrong_classes(network(images), labels, 1)[:, 0]
        state = plan.attack.start(images, labels, draws, targets)
        # The first step may put tables on the device.
        plan.attack.step(network, state)
        cuda.syncs.clear()
        for _ in range(STEPS):
            plan.attack.step(network, state)
        assert not cuda.syncs
        assert state.iteration.cpu().max() == 1 + STEPS or state.broken.cpu().all()


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
