"""The pieces that recipes share: schedule, average, augmentation, the attack, the precision."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from bench.training.data import augment, split
from bench.training.draws import generator_for, initialised, on_device
from bench.training.network import under_attack
from bench.training.optimization import averaged_model, cosine, decay_at, one_cycle
from bench.training.recipe import readable_radius
from bench.training.recipes.adversarial import perturb
from bench.training.smoothing import draw_noise


@given(
    steps=st.integers(1, 500),
    peak=st.floats(1e-4, 1),
    warm_up=st.floats(0, 0.99),
)
def test_one_cycle_rises_to_the_peak_once_and_falls_towards_zero(
    steps: int, peak: float, warm_up: float
) -> None:
    rates = [one_cycle(step, steps, peak, warm_up) for step in range(steps)]
    summit = rates.index(max(rates))
    assert all(0 < rate <= peak * (1 + 1e-9) for rate in rates)
    assert rates[: summit + 1] == sorted(rates[: summit + 1])
    assert rates[summit:] == sorted(rates[summit:], reverse=True)
    with pytest.raises(ValueError, match=f"expected a step from 0 to {steps - 1}"):
        one_cycle(steps, steps, peak, warm_up)


@given(steps=st.integers(1, 500), peak=st.floats(1e-6, 1), warm_up=st.floats(0, 0.99))
def test_the_cosine_warms_up_and_falls(steps: int, peak: float, warm_up: float) -> None:
    rates = [cosine(step, steps, peak, warm_up) for step in range(steps)]
    assert all(0 < rate <= peak for rate in rates)
    plain = [cosine(step, steps, peak, 0) for step in range(steps)]
    warmth = [rate / bare for rate, bare in zip(rates, plain, strict=True)]
    assert plain[0] == peak
    assert plain == sorted(plain, reverse=True)
    assert warmth == pytest.approx(sorted(warmth))
    if warm_up:
        assert warmth[0] == pytest.approx(1 - math.exp(-1 / (warm_up * steps)))
    with pytest.raises(ValueError, match=f"expected a step from 0 to {steps - 1}"):
        cosine(-1, steps, peak, warm_up)


def test_the_average_of_constant_weights_is_those_weights_from_the_first_update_on() -> None:
    network = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    average = averaged_model(network, 0.99)
    for tensor in network.state_dict().values():
        tensor.fill_(3)
    for _ in range(3):
        average.update_parameters(network)
        assert all((tensor == 3).all() for tensor in average.module.state_dict().values())
    assert not average.module.training


def test_the_average_follows_its_recursion() -> None:
    network = nn.Linear(1, 1, bias=False)
    average, expected = averaged_model(network, 0.5), 0.0
    for step in range(30):
        with torch.no_grad():
            network.weight.fill_(float(step))
        average.update_parameters(network)
        decay = decay_at(step, 0.5)
        expected = decay * expected + (1 - decay) * step
    assert average.module.get_parameter("weight").item() == pytest.approx(expected)
    assert decay_at(0, 0.999) == 0
    assert decay_at(10**6, 0.999) == 0.999


def test_every_key_has_a_stream_of_its_own() -> None:
    keys = [(), *((1, epoch) for epoch in range(20)), (2,)]
    streams = [generator_for(seed, *key) for seed in (0, 1, 5) for key in keys]
    assert len({stream.initial_seed() for stream in streams}) == len(streams)
    with pytest.raises(ValueError, match="expected a key that does not begin with 0"):
        generator_for(5, 0)


def test_the_streams_are_those_of_the_shipped_weights() -> None:
    streams = [generator_for(0, *key).initial_seed() for key in ((), (1, 0), (1, 1), (2,))]
    assert streams == [
        7896617691693857887,
        2918264622725855778,
        1554199118406742183,
        8597659618385908031,
    ]


def test_noise_is_drawn_where_it_is_used() -> None:
    generator = generator_for(0, 1)
    assert on_device(generator, torch.device("cpu")) is generator


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_noise_on_a_gpu_depends_on_the_stream_alone() -> None:
    images = torch.zeros(4, 3, 8, 8, device="cuda")
    first, again, other = (draw_noise(images, 0.5, 100, generator_for(0, key)) for key in (1, 1, 2))
    assert first.device == images.device
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.std().item() == pytest.approx(0.5, rel=0.02)


def test_the_split_is_that_of_the_shipped_submissions() -> None:
    """Mixes of shipped bases are chosen on images that the bases held out."""
    _, held_out = split(50_000, 500, 0)
    assert held_out[:5].tolist() == [120, 131, 279, 316, 352]
    assert int(held_out.sum()) == 12438686


def test_augmented_images_are_shifted_and_mirrored_originals() -> None:
    images = torch.arange(1, 1 + 6 * 2 * 5 * 5, dtype=torch.float32).view(6, 2, 5, 5)
    flips = augment(images, 0, True, 0, generator_for(3))
    mirrored = [bool((flips[i] == images[i].flip(-1)).all()) for i in range(6)]
    assert 0 < sum(mirrored) < 6
    assert all(m or (flips[i] == images[i]).all() for i, m in enumerate(mirrored))
    padded = nn.functional.pad(images, (2, 2, 2, 2))
    windows = padded.unfold(2, 5, 1).unfold(3, 5, 1).flatten(2, 3)
    crops = augment(images, 2, False, 0, generator_for(4))
    assert all(
        any(torch.equal(crops[i], windows[i, :, place]) for place in range(25)) for i in range(6)
    )
    assert crops.is_contiguous(memory_format=torch.channels_last)


def test_a_cutout_blackens_one_square_of_all_channels() -> None:
    cut = augment(torch.ones(50, 3, 16, 16), 0, False, 6, generator_for(0))
    assert torch.equal(cut[:, 0], cut[:, 2])
    holes = (cut[:, 0] == 0).sum((1, 2))
    assert holes.max() == 36
    assert holes.min() >= 9


@pytest.mark.parametrize(("steps", "noise", "projects"), [(1, 2.0, False), (4, 1.0, True)])
def test_the_attack_raises_the_loss_within_its_bounds(
    steps: int, noise: float, projects: bool
) -> None:
    network = initialised(lambda: nn.Sequential(nn.Flatten(), nn.Linear(48, 5)), 0)
    images = torch.rand(20, 3, 4, 4, generator=generator_for(1))
    labels = torch.arange(20) % 5
    adversarial = perturb(
        network, images, labels, 0.1, steps, 1.0, noise, projects, generator_for(2)
    )
    loss = nn.functional.cross_entropy
    assert loss(network(adversarial), labels) > loss(network(images), labels)
    assert adversarial.min() >= 0
    assert adversarial.max() <= 1
    bound = 0.1 if projects else 0.3
    assert (adversarial - images).abs().max() <= bound + 1e-6
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize("training", [True, False])
def test_an_attack_leaves_the_running_statistics_and_the_mode_alone(training: bool) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.BatchNorm1d(3)).train()
    before = network[2].running_mean.clone()
    with under_attack(network, training):
        assert network.training is training
        network(torch.rand(8, 1, 2, 2))
    assert torch.equal(network[2].running_mean, before)
    assert network.training
    network(torch.rand(8, 1, 2, 2))
    assert not torch.equal(network[2].running_mean, before)


def test_a_radius_is_written_as_people_write_it() -> None:
    assert readable_radius(8 / 255) == "8/255"
    assert readable_radius(0.2) == 0.2
    assert readable_radius(0.0123456789) == 0.0123456789
