"""Broken defences are flagged, and broken where an attack of ours can; honest networks are not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from bench import flags
from bench.candidates.registry import find_candidates
from bench.flags.attacks import square_beats_gradients
from bench.flags.extra import extra_flags
from bench.store.summary import AttackSummary
from bench.suites import load_suite
from bench.suites.suite import AttackChoice
from tests.flags.defences import (
    WHITE_BOX,
    Defence,
    N,
    Purified,
    base,
    batch_centred,
    bpda,
    detached_weight,
    evaluate,
    jpeg,
    left_on,
    noisy,
    quantized,
    samples,
    saturated,
    shattered,
    sparsified,
    trained,
)


def _raised(module: nn.Module) -> set[str]:
    some = samples().first(32)
    found = flags.inspect("it", module.eval(), some.images, some.labels, 10, randomized=False)
    return {flag.name for flag in found}


@pytest.mark.parametrize(
    ("defence", "expected"),
    [
        (lambda: Defence(base(), quantized), {"zero-gradients", "stopped-gradients"}),
        (lambda: Defence(base(), noisy), {"randomized"}),
        (lambda: Defence(base(), after=lambda logits: 1e4 * logits), {"vanishing-gradients"}),
        (lambda: Defence(base(), after=lambda logits: 20 * logits), {"vanishing-gradients"}),
        (lambda: Defence(base(), jpeg), {"zero-gradients", "stopped-gradients"}),
        (detached_weight, {"stopped-gradients"}),
        (lambda: Defence(base(), sparsified), {"stopped-gradients"}),
        (left_on, {"randomized"}),
        (lambda: Purified(base()), {"gradients-in-forward", "stopped-gradients"}),
        (lambda: Defence(base(), saturated), {"zero-gradients"}),
        (lambda: Defence(base(), batch_centred), {"batch-dependent"}),
        (lambda: Defence(base(), after=lambda logits: logits.softmax(1)), {"probabilities"}),
    ],
)
def test_a_defence_is_flagged(defence: Callable[[], nn.Module], expected: set[str]) -> None:
    assert expected <= _raised(defence())


@pytest.mark.parametrize(
    ("defence", "surrogate", "gap"),
    [
        (lambda: Defence(base(), quantized), None, 0.2),
        (lambda: Defence(base(), jpeg), None, 0.2),
        (lambda: Defence(base(), sparsified), None, 0.05),
        (lambda: Purified(base()), None, 0.2),
        (lambda: Defence(base(), saturated), base, 0.1),
    ],
)
def test_a_stand_ins_gradient_breaks_more(
    defence: Callable[[], nn.Module], surrogate: Callable[[], nn.Module] | None, gap: float
) -> None:
    module = defence().eval()
    before = evaluate(module, *WHITE_BOX).robust
    after = evaluate(module, bpda(), surrogate=surrogate() if surrogate else None).robust
    assert after <= before - gap


def test_scaled_logits_fall_to_a_loss_that_rescales_them() -> None:
    module = Defence(base(), after=lambda logits: 1e4 * logits).eval()
    on_cross_entropy, on_ratio = (evaluate(module, attack).robust for attack in WHITE_BOX)
    assert on_cross_entropy > 0.8
    assert on_ratio == evaluate(base(), WHITE_BOX[1]).robust


def test_noise_falls_to_the_expectation_over_it() -> None:
    module = Defence(base(), noisy).eval()
    attack = AttackChoice(name="apgd-expectation", parameters={"steps": 10, "targets": 2})
    # Averaged over its noise, it stands no better than what it adds the noise to; by its nature
    # the mean over draws decides a sample or two the other way.
    stands = evaluate(module, attack, randomized=True).robust
    assert stands <= evaluate(base(), *WHITE_BOX).robust + 2 / N


def test_shattered_gradients_lose_to_queries_and_to_transfer() -> None:
    module = Defence(base(), shattered).eval()
    square = AttackChoice(name="square", parameters={"queries": 500})
    found = evaluate(module, *WHITE_BOX, square)
    standing, attacks = N, []
    for name, rows in found.tables.attempts.groupby("attack", sort=False):
        standing -= int((rows["outcome"] == "broken").sum())
        attacks.append(_attack(str(name), standing / N))
    assert square_beats_gradients(attacks, N) is not None
    assert "transfer-beats-white-box" in _extra(module)


def test_a_gradient_that_points_nowhere_leaves_samples_in_any_ball() -> None:
    module = Defence(base(), lambda images: images.detach() + 0 * images).eval()
    assert {"larger-radius-survived", "transfer-beats-white-box"} <= _extra(module)


def test_a_budget_that_was_too_small_is_noticed() -> None:
    rippled = Defence(base(), lambda images: images + 0.05 * torch.sin(60 * images))
    hasty = AttackChoice(name="apgd-ce", parameters={"steps": 2})
    assert "more-iterations-break" in _extra(rippled, hasty)


def _extra(module: nn.Module, *attacks: AttackChoice) -> set[str]:
    found = evaluate(module, *(attacks or WHITE_BOX))
    return {flag.name for flag in extra_flags(found.task, found.tables, None)}


def _attack(name: str, accuracy: float) -> AttackSummary:
    return AttackSummary(
        name=name,
        attempted=0,
        broken=0,
        accuracy_after=accuracy,
        seconds=0,
        forward_passes=0,
        backward_passes=0,
    )


def _small(activation: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 48), activation, nn.Linear(48, 10))


def _convolutional(activation: nn.Module, *norm: nn.Module) -> nn.Module:
    first = nn.Conv2d(1, 12, 3, padding=1)
    return nn.Sequential(
        first, *norm, activation, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(192, 10)
    )


class _Attention(nn.Module):
    """Rows of the image as tokens of a small transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(8, 16)
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.1, batch_first=True)
        self.head = nn.Linear(16, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.layer(self.embed(images[:, 0])).mean(dim=1))
        return logits


HONEST: list[Callable[[], nn.Module]] = [
    lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 10)),
    lambda: _small(nn.ReLU()),
    lambda: _small(nn.GELU()),
    lambda: _small(nn.Tanh()),
    lambda: _small(nn.Sigmoid()),
    lambda: _convolutional(nn.ReLU()),
    lambda: _convolutional(nn.SiLU(), nn.BatchNorm2d(12)),
    lambda: _convolutional(nn.LeakyReLU(), nn.GroupNorm(3, 12)),
    lambda: nn.Sequential(_convolutional(nn.ReLU()), nn.Dropout(0.2)),
    _Attention,
]


def _pruned() -> nn.Module:
    """Masks of weights, of hidden features by the network's own weights, and quantized weights."""
    module = trained(lambda: _convolutional(nn.ReLU(), nn.BatchNorm2d(12)), steps=40)
    module.requires_grad_(requires_grad=True)
    prune.l1_unstructured(module[0], "weight", amount=0.3)
    prune.ln_structured(module[5], "weight", amount=0.3, n=2, dim=1)
    return module


def test_pruned_weights_stop_no_gradient() -> None:
    assert _raised(_pruned()) == set()


@pytest.mark.parametrize("build", HONEST)
def test_an_honest_network_is_not_flagged(build: Callable[[], nn.Module]) -> None:
    assert _raised(trained(build, steps=40)) == set()


@pytest.mark.parametrize(
    "build",
    [
        pytest.param(build, marks=() if place in (0, 5) else pytest.mark.slow)
        for place, build in enumerate(HONEST)
    ],
)
def test_an_honest_network_passes_the_further_attacks(build: Callable[[], nn.Module]) -> None:
    assert _extra(trained(build)) == set()


@pytest.mark.parametrize("name", ["digits-standard", "digits-robust", "digits-mix"])
def test_a_shipped_submission_is_not_flagged(name: str) -> None:
    (reference,) = find_candidates((name,), load_suite("digits-linf"), None, trust_code=False)
    assert _raised(reference.load().module) == set()


@pytest.mark.parametrize("name", ["cifar100-robust", "cifar100-standard"])
def test_a_shipped_network_on_larger_images_is_not_flagged(name: str) -> None:
    (reference,) = find_candidates((name,), load_suite("cifar100-linf"), None, trust_code=False)
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(4)
    module = reference.load().module
    assert flags.inspect(name, module, images, labels, 100, randomized=False) == []
