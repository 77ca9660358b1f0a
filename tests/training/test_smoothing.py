"""Recipes for smoothed classifiers: each loss against its formula, step by step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.stats import norm
from torch import Tensor, nn
from torch.nn import functional

import bench.training
from bench.candidates.smoothed import Smoothed
from bench.candidates.submission_reference import SubmissionReference
from bench.data import load
from bench.errors import InputError
from bench.training import Conditions, Trained, override, recipes
from bench.training.draws import generator_for, initialised
from bench.training.optimization import divided
from bench.training.recipes import (
    consistency,
    gaussian,
    macer,
    smoothadv,
    smoothmix,
    stability,
)
from bench.training.recipes.consistency import ConsistencySettings
from bench.training.recipes.gaussian import GaussianSettings
from bench.training.recipes.macer import MacerSettings
from bench.training.recipes.smoothadv import SmoothAdvSettings
from bench.training.recipes.smoothmix import SmoothMixSettings
from bench.training.recipes.stability import StabilitySettings
from bench.training.smoothing import into_ball, log_mean_softmax, noisy_batch

RECIPES = ("gaussian", "smoothmix", "smoothadv", "consistency", "stability", "macer")
CLASSES = 3
NETWORK = "bench.candidates.architectures:digits_network"


def tiny_network() -> nn.Module:
    """A smooth network of 2x2 images, in train mode; its batch norm tells the modes apart."""
    return initialised(
        lambda: nn.Sequential(
            nn.Flatten(), nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, CLASSES)
        ),
        3,
    )


def batch() -> tuple[Tensor, Tensor]:
    """Six images, two of them with values at the border of [0, 1], and labels."""
    images = torch.rand(6, 1, 2, 2, generator=generator_for(1))
    images[0], images[1, 0, 0, 0] = 1.0, 0.0
    return images, torch.tensor([0, 1, 2, 0, 1, 2])


def drawn(images: Tensor, sigma: float, draws: int, seed: int) -> tuple[list[Tensor], Tensor]:
    """The noise of each draw, and the mixing shares that a recipe takes after it."""
    generator = generator_for(seed)
    noise = torch.randn(draws, *images.shape, generator=generator) * sigma
    return list(noise), torch.rand(len(images), generator=generator) / 2


def in_one_pass(network: nn.Module, images: Tensor, noise: list[Tensor]) -> list[Tensor]:
    """Logits of each draw, normalised as one batch."""
    logits: Tensor = network(torch.cat([images + each for each in noise]))
    return list(logits.chunk(len(noise)))


def mean_softmax(scores: list[Tensor]) -> Tensor:
    """F, by its definition."""
    return torch.stack([each.softmax(1) for each in scores]).mean(0)


def gradients(loss: Tensor, network: nn.Module) -> list[Tensor]:
    """Of all weights."""
    return list(torch.autograd.grad(loss, list(network.parameters())))


def ascend(
    network: nn.Module, image: Tensor, labels: Tensor, noise: list[Tensor], length: float
) -> Tensor:
    """One normalised step up -log F in eval mode, draw by draw; nothing is clamped."""
    network.eval()
    image = image.clone().requires_grad_()
    mean = torch.stack([network(image + each).softmax(1) for each in noise]).mean(0)
    loss = -mean[range(len(labels)), labels].log().sum()
    (gradient,) = torch.autograd.grad(loss, image)
    network.train()
    norms = gradient.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    return (image + length * gradient / norms).detach()


@pytest.mark.parametrize("one_step", [False, True])
@pytest.mark.parametrize("epoch", [0, 3, 40])
def test_a_smoothmix_step_is_the_papers(one_step: bool, epoch: int) -> None:
    settings = SmoothMixSettings(
        architecture=NETWORK,
        sigma=0.3,
        noise_draws=2,
        attack_steps=3,
        attack_step_size=2.0,
        mix_weight=5.0,
        warm_up_epochs=10,
        one_step_adversary=one_step,
    )
    network, (images, labels) = tiny_network(), batch()
    loss = smoothmix.loss(
        settings, noisy_batch(settings, network, images, labels, generator_for(7), epoch)
    )
    came = gradients(loss, network)

    other = tiny_network()
    noise, shares = drawn(images, 0.3, 2, seed=7)
    assert float(shares.max()) <= 0.5
    weight = min(1.0, (epoch + 1) / 10)
    start = end = images
    for step in range(3):
        end = ascend(other, end, labels, noise, length=0.6).clamp(0, 1)
        if step == 0 and one_step:
            offset = end - images
            lengths = offset.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
            start = images + offset * torch.minimum(torch.ones(()), weight * 0.6 / lengths)
    # Kept in no ball: in three steps of 0.6 an image goes farther than one step would take it.
    assert float((end - images).flatten(1).norm(dim=1).max()) > 0.6

    scores = in_one_pass(other, start, noise)
    cross_entropy = torch.stack([functional.cross_entropy(each, labels) for each in scores]).mean()
    mean = mean_softmax(scores)
    part = shares.view(-1, 1, 1, 1)
    mixed = in_one_pass(other, (1 - part) * start + part * end, noise)
    targets = (1 - shares[:, None]) * mean + shares[:, None] / CLASSES
    right = mean.argmax(1) == labels
    assert (one_step and epoch == 40) or 0 < int(right.sum()) < len(labels)
    mixed_loss = torch.zeros(())
    for each in mixed:
        kl = (targets * (targets.log() - each.log_softmax(1))).sum(1)
        mixed_loss = mixed_loss + torch.where(right, kl, 0.0).sum() / (2 * len(labels))
    expected = cross_entropy + 5.0 * weight * mixed_loss
    torch.testing.assert_close(loss, expected)
    for mine, theirs in zip(came, gradients(expected, other), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)
    # The attack leaves no trace in the running statistics: the loss's own two passes do.
    torch.testing.assert_close(network[2].running_mean, other[2].running_mean)


def test_smoothmix_after_epochs_of_noise_begins_as_it_always_does() -> None:
    fixed: dict[str, Any] = {"architecture": NETWORK, "sigma": 0.3, "noise_draws": 2}
    later = SmoothMixSettings(**fixed, noise_epochs=5, warm_up_epochs=4, epochs=9)
    at_once = SmoothMixSettings(**fixed, warm_up_epochs=4, epochs=4)
    images, labels = batch()

    def loss(settings: SmoothMixSettings, epoch: int) -> Tensor:
        noisy = noisy_batch(settings, tiny_network(), images, labels, generator_for(7), epoch)
        return smoothmix.loss(settings, noisy)

    torch.testing.assert_close(loss(later, 6), loss(at_once, 1))
    noise, _ = drawn(images, 0.3, 2, seed=7)
    expected = functional.cross_entropy(tiny_network()(images + noise[0]), labels)
    torch.testing.assert_close(loss(later, 4), expected)
    with pytest.raises(ValidationError, match="expected noise_epochs below the 5 epochs"):
        SmoothMixSettings(**fixed, noise_epochs=5, epochs=5)


def test_gaussian_is_cross_entropy_on_noisy_images() -> None:
    settings = GaussianSettings(architecture=NETWORK, sigma=0.4)
    network, (images, labels) = tiny_network(), batch()
    (noise,), _ = drawn(images, 0.4, 1, seed=2)
    expected = functional.cross_entropy(network(images + noise), labels)
    came = gaussian.loss(
        settings, noisy_batch(settings, network, images, labels, generator_for(2), 0)
    )
    torch.testing.assert_close(came, expected)


def test_smoothadv_trains_on_images_attacked_through_the_same_noise() -> None:
    settings = SmoothAdvSettings(
        architecture=NETWORK, sigma=0.3, noise_draws=3, eps=0.5, attack_steps=4, warm_up_epochs=10
    )
    network, (images, labels) = tiny_network(), batch()
    noise, _ = drawn(images, 0.3, 3, seed=4)
    adversarial, eps = images, 0.5 * 0.4
    for _ in range(4):
        moved = ascend(network, adversarial, labels, noise, length=2 * eps / 4).clamp(0, 1)
        offset = moved - images
        lengths = offset.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        adversarial = images + offset * torch.minimum(torch.ones(()), eps / lengths)
    scores = in_one_pass(network, adversarial, noise)
    expected = functional.cross_entropy(torch.cat(scores), labels.repeat(3))
    came = smoothadv.loss(
        settings, noisy_batch(settings, tiny_network(), images, labels, generator_for(4), 3)
    )
    torch.testing.assert_close(came, expected)


def test_consistency_adds_divergence_and_entropy() -> None:
    settings = ConsistencySettings(architecture=NETWORK, sigma=0.3, consistency_weight=20.0)
    network, (images, labels) = tiny_network(), batch()
    noise, _ = drawn(images, 0.3, 2, seed=5)
    scores = in_one_pass(network, images, noise)
    mean = mean_softmax(scores)
    expected = functional.cross_entropy(torch.cat(scores), labels.repeat(2))
    for each in scores:
        log_q = each.log_softmax(1)
        expected = expected + 20 / 2 * functional.kl_div(log_q, mean, reduction="batchmean")
    expected = expected - 0.5 * (mean * mean.log()).sum(1).mean()
    came = consistency.loss(
        settings, noisy_batch(settings, network, images, labels, generator_for(5), 0)
    )
    torch.testing.assert_close(came, expected)


def test_stability_asks_noisy_images_for_the_clean_ones_probabilities() -> None:
    settings = StabilitySettings(architecture=NETWORK, sigma=0.3)
    network, (images, labels) = tiny_network(), batch()
    (noise,), _ = drawn(images, 0.3, 1, seed=6)
    clean, noisy = network(images), network(images + noise)
    expected = functional.cross_entropy(clean, labels)
    expected = expected + 2.0 * functional.cross_entropy(noisy, clean.softmax(1))
    came = stability.loss(
        settings, noisy_batch(settings, network, images, labels, generator_for(6), 0)
    )
    torch.testing.assert_close(came, expected)
    assert all(grad.abs().sum() > 0 for grad in gradients(came, network)[-2:])


@pytest.mark.parametrize(("hinge", "epoch"), [(8.0, 5), (0.4, 5), (8.0, 1)])
def test_macer_adds_the_hinged_radius_of_what_is_right(hinge: float, epoch: int) -> None:
    settings = MacerSettings(
        architecture=NETWORK,
        sigma=0.3,
        noise_draws=4,
        radius_weight=12.0,
        inverse_temperature=2.0,
        hinge=hinge,
        deferred_epochs=2,
    )
    network, (images, _) = tiny_network(), batch()
    noise, _ = drawn(images, 0.3, 4, seed=8)
    scores = in_one_pass(network, images, noise)
    mean = mean_softmax(scores)
    labels = mean_softmax([2.0 * each for each in scores]).argmax(1)
    labels[4:] = (labels[4:] + 1) % CLASSES
    expected = -mean[range(6), labels].log().mean()
    sharp = mean_softmax([2.0 * each for each in scores]).detach().double().numpy()
    radii = []
    for row, label in zip(sharp, labels.tolist(), strict=True):
        ordered = sorted(row, reverse=True)
        gap = norm.ppf(ordered[0]) - norm.ppf(ordered[1])
        radii.append(max(hinge - gap, 0.0) if row.argmax() == label else 0.0)
    assert 0 < sum(each > 0 for each in radii) < 6
    if epoch >= 2:
        expected = expected + 12.0 * 0.3 / 2 * sum(radii) / 6
    came = macer.loss(
        settings, noisy_batch(settings, network, images, labels, generator_for(8), epoch)
    )
    assert came.item() == pytest.approx(expected.item(), rel=1e-4)


def test_macer_stays_finite_where_probabilities_round_to_one() -> None:
    settings = MacerSettings(architecture=NETWORK, sigma=0.3)
    scores = torch.tensor([[[200.0, 0, 0], [0.5, 0.2, 0]]] * 2, requires_grad=True)
    loss = macer.radius_loss(settings, scores, torch.tensor([0, 0]))
    loss.backward()
    assert loss.isfinite()
    assert scores.grad is not None
    assert scores.grad.isfinite().all()
    assert scores.grad[:, 0].eq(0).all()


@given(seed=st.integers(0, 99), radius=st.floats(0.01, 3))
def test_steps_are_unit_vectors_and_balls_hold(seed: int, radius: float) -> None:
    network, (images, labels) = tiny_network().eval(), batch()
    settings = GaussianSettings(architecture=NETWORK, sigma=1.0, noise_draws=2)
    noisy = noisy_batch(settings, network, images, labels, generator_for(seed), 0)
    direction = noisy.ascent_direction(images)
    torch.testing.assert_close(direction.flatten(1).norm(dim=1), torch.ones(6))
    inside = into_ball(images + 2 * direction, images, radius)
    distances = (inside - images).flatten(1).norm(dim=1)
    torch.testing.assert_close(distances, torch.full((6,), min(2.0, radius)))


def test_mean_softmax_is_finite_where_all_copies_underflow() -> None:
    scores = torch.tensor([[[0.0, 500.0]], [[0.0, 400.0]]])
    torch.testing.assert_close(
        log_mean_softmax(scores), torch.tensor([[-400.0 - torch.log(torch.tensor(2.0)), 0.0]])
    )


def test_the_learning_rate_is_divided_by_ten() -> None:
    rates = [divided(step, 1500, 150, 0.1, 50) for step in (0, 499, 500, 999, 1000, 1499)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])
    with pytest.raises(ValueError, match="expected a step from 0 to 9"):
        divided(10, 10, 1, 0.1, 50)


TINY = {
    "epochs": 2,
    "batch_size": 16,
    "architecture_args.widths": [4],
    "held_out": 10,
    "decay_every": 1,
}


class Killed(Exception):
    """Raised by a callback in place of a kill."""


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_killed_training_resumes_to_the_same_weights(recipe: str, tmp_path: Path) -> None:
    data = load("digits", "train").first(60)
    preset = bench.training.presets()[bench.training.preset_for(recipe, "digits")]
    settings = override(preset.settings, TINY)

    def train(checkpoint: Path, kill: bool) -> Trained:
        def progress(state: bench.training.TrainingProgress) -> None:
            if kill and state.epoch == 1:
                raise Killed

        conditions = Conditions(5, checkpoint, True, progress)
        return recipes()[recipe].train(settings, data, conditions)

    whole = train(tmp_path / "whole.pt", kill=False)
    with pytest.raises(Killed):
        train(tmp_path / "killed.pt", kill=True)
    resumed = train(tmp_path / "killed.pt", kill=False)
    assert resumed.network is not None
    assert whole.network is not None
    state, expected = resumed.network.state_dict(), whole.network.state_dict()
    assert all(torch.equal(state[name], expected[name]) for name in expected)
    assert resumed.measurements == whole.measurements


def test_the_submission_is_the_smoothed_classifier(tmp_path: Path) -> None:
    out = tmp_path / "quick"
    changes = {"epochs": 1, "architecture_args.widths": "[4]", "sigma": "0.3"}
    written = bench.training.run("gaussian", "digits-gaussian", None, out, 1, changes)
    candidate = SubmissionReference(out, written, False, tmp_path).load()
    assert candidate.sigma == 0.3
    assert isinstance(candidate.module, Smoothed)
    assert candidate.voter is candidate.module.base
    assert written.training["settings"]["sigma"] == 0.3


@pytest.mark.parametrize(
    ("overrides", "field"),
    [
        ({"sigma": "0"}, "sigma"),
        ({"sigma": "-0.5"}, "sigma"),
        ({"noise_draws": "0"}, "noise_draws"),
        ({"label_smoothing": "0.1"}, "label_smoothing"),
        ({"warm_up": "0.1"}, "warm_up"),
    ],
)
def test_settings_outside_their_range_are_named(overrides: dict[str, str], field: str) -> None:
    settings = bench.training.presets()["digits-smoothmix"].settings
    with pytest.raises(InputError, match=f"field {field}"):
        override(settings, overrides)
