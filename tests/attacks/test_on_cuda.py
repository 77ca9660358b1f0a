"""What attacks ask of a GPU; on a pretend one, so that every machine can say."""

from __future__ import annotations

import pytest
import torch

from bench.attacks.attack import likeliest_wrong_classes
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
