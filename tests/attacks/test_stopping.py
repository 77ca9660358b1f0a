"""Attacks that go on after a break: they look for the highest loss, not for a mistake."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bench.attacks.attack import Passes
from bench.attacks.auto_pgd import APGD
from bench.attacks.distances import Norm
from bench.attacks.draws import keyed_draws
from bench.attacks.losses import LOSSES


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_an_attack_that_goes_on_after_a_break_finds_a_higher_loss(norm: Norm) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 3))
    images, labels = torch.rand(10, 3, 2, 2), torch.arange(10) % 3
    losses = []
    for stops in (True, False):
        attack = APGD(norm, 0.5, LOSSES["ce"], steps=10, stops_at_break=stops)
        state = attack.start(images, labels, keyed_draws(0, torch.arange(10), "test"))
        for _ in range(attack.steps):
            attack.step(model, state)
        assert state.broken.any()
        assert attack.finished(state).all()
        assert (state.iteration < attack.steps).any() == stops
        with torch.no_grad():
            losses.append(LOSSES["ce"](model(state.best), labels, labels))
    assert (losses[1] >= losses[0]).all()
    assert (losses[1] > losses[0] + 0.1).any()


def test_an_attack_says_what_a_step_through_several_passes_costs() -> None:
    attack = APGD("Linf", 0.1, LOSSES["ce"], passes=20)
    assert attack.passes == Passes(forward=0, forward_backward=20)
