"""The fast recipe: whitening, alternating flips, growing images, resuming, presets."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import bench.training
from bench.candidates.submission_reference import SubmissionReference
from bench.data import load
from bench.errors import InputError
from bench.training import Conditions, Trained, TrainingProgress, override, recipes
from bench.training.data import alternating_flips, augment
from bench.training.draws import generator_for
from bench.training.resizing import resized, side_at
from bench.training.whitening import whitening_filters

TINY = {
    "architecture_args": {
        "num_classes": 10,
        "widths": [4, 4],
        "mean": [0.3],
        "standard_deviation": [0.4],
    },
    "epochs": 3,
    "batch_size": 16,
    "held_out": 10,
    "first_side": None,
}


class Killed(Exception):
    """Raised by a callback in place of a kill."""


class Digits:
    """A hundred of scikit-learn's digits."""

    def __init__(self) -> None:
        digits = load("digits", "train").first(100)
        self.name, self.labels = digits.name, digits.labels
        self.images: Tensor = digits.images


def train_tiny(checkpoint: Path, kill_after: int | None = None, **changes: object) -> Trained:
    settings = override(bench.training.presets()["cifar10-fast"].settings, TINY | changes)

    def progress(state: TrainingProgress) -> None:
        if state.epoch == kill_after:
            raise Killed

    conditions = Conditions(5, checkpoint, resume=True, progress=progress)  # type: ignore[arg-type]
    return recipes()["fast"].train(settings, Digits(), conditions)


@given(seed=st.integers(0, 2**31), side=st.integers(1, 3), channels=st.integers(1, 3))
def test_whitened_patches_have_the_identity_as_their_covariance(
    seed: int, side: int, channels: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    # Neighbouring pixels that resemble each other, as those of photographs do.
    images = torch.rand(40, channels, 9, 9, generator=generator).double()
    images = images + images.roll(1, -1) + 0.5 * images.roll(1, 1) - 2
    filters = whitening_filters(images, side)
    assert filters.shape == (channels * side**2, channels, side, side)
    outputs = torch.nn.functional.conv2d(images, filters).movedim(1, 0).flatten(1)
    covariance = torch.atleast_2d(torch.cov(outputs, correction=0))
    torch.testing.assert_close(
        covariance, torch.eye(len(covariance), dtype=torch.float64), rtol=0, atol=1e-6
    )


def test_epsilon_shrinks_small_directions_and_lets_constant_ones_be() -> None:
    images = torch.randn(50, 1, 6, 6, generator=generator_for(0), dtype=torch.float64) * 0.1
    outputs = torch.nn.functional.conv2d(images, whitening_filters(images, 1, 0.01))
    assert outputs.var().item() == pytest.approx(0.5, abs=0.02)
    assert whitening_filters(torch.zeros(2, 3, 4, 4), 2, 0.01).isfinite().all()
    with pytest.raises(ValueError, match="expected patches that vary in all of their 12"):
        whitening_filters(torch.zeros(2, 3, 4, 4), 2)


@given(seed=st.integers(0, 2**31), epoch=st.integers(0, 50), data=st.data())
def test_alternating_flips_mirror_each_image_in_exactly_every_second_epoch(
    seed: int, epoch: int, data: st.DataObject
) -> None:
    chosen = torch.tensor(data.draw(st.lists(st.integers(0, 99), min_size=1)))
    now, then, later = (alternating_flips(chosen, 100, seed, epoch + each) for each in range(3))
    assert torch.equal(now, ~then)
    assert torch.equal(now, later)
    every = alternating_flips(torch.arange(100), 100, seed, epoch)
    assert torch.equal(every[chosen], now)
    assert 20 < every.sum() < 80


def test_images_are_mirrored_as_told_and_shifted_into_their_reflection() -> None:
    images = torch.arange(1, 1 + 6 * 2 * 5 * 5, dtype=torch.float32).view(6, 2, 5, 5)
    told = torch.tensor([True, False, True, True, False, False])
    flips = augment(images, 0, told, 0, generator_for(3))
    assert torch.equal(flips, torch.where(told[:, None, None, None], images.flip(-1), images))
    shifted = augment(images, 2, False, 0, generator_for(4), "reflected")
    padded = torch.nn.functional.pad(images, (2, 2, 2, 2), mode="reflect")
    windows = padded.unfold(2, 5, 1).unfold(3, 5, 1).flatten(2, 3)
    assert all(
        any(torch.equal(shifted[i], windows[i, :, place]) for place in range(25)) for i in range(6)
    )


@given(
    epochs=st.integers(1, 40),
    first=st.integers(8, 40),
    growth=st.floats(0, 1),
)
def test_images_grow_to_their_full_side(epochs: int, first: int, growth: float) -> None:
    sides = [side_at(epoch, epochs, 32, first, growth) for epoch in range(epochs + 1)]
    assert sides == sorted(sides)
    assert sides[-1] == 32
    assert all(side % 4 == 0 for side in sides)
    images = torch.rand(2, 3, 32, 32)
    assert resized(images, sides[0]).shape == (2, 3, sides[0], sides[0])
    assert resized(images, 32) is images


@pytest.mark.parametrize("first_side", [None, 8])
def test_a_killed_training_resumes_to_the_weights_of_an_uninterrupted_one(
    first_side: int | None, tmp_path: Path
) -> None:
    whole = train_tiny(tmp_path / "whole.pt", first_side=first_side)
    with pytest.raises(Killed):
        train_tiny(tmp_path / "killed.pt", kill_after=1, first_side=first_side)
    resumed = train_tiny(tmp_path / "killed.pt", first_side=first_side)
    assert resumed.network is not None
    assert whole.network is not None
    state, expected = resumed.network.state_dict(), whole.network.state_dict()
    assert all(torch.equal(state[name], expected[name]) for name in expected)
    assert resumed.measurements == whole.measurements


@pytest.mark.parametrize("preset", ["cifar10-fast", "cifar100-fast"])
def test_a_preset_makes_a_submission_that_fits_its_size_and_loads(
    preset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Images:
        name = preset.removesuffix("-fast")
        images = torch.rand(40, 3, 32, 32, generator=generator_for(1))
        labels = torch.arange(40) % 10

    monkeypatch.setattr(import_module("bench.training.run"), "load", lambda *_: Images())
    out = tmp_path / "fast"
    changes = {"epochs": 1, "held_out": 20, "batch_size": 10}
    written = bench.training.run("fast", preset, None, out, overrides=changes)
    assert (out / "weights.safetensors").stat().st_size <= 6e6
    network = SubmissionReference(out, written, False, tmp_path).load().module
    assert network(Images.images[:2]).isfinite().all()
    whitened = torch.nn.functional.conv2d(
        network.normalization(Images.images[20:]), network.whitening.float()
    )
    assert whitened.std().item() == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"architecture": "bench.candidates.architectures:digits_network"},
            "expected an architecture with a whitening layer",
        ),
        # Grey images in three equal channels.
        ({"whitening_epsilon": 0, "architecture_args": {"num_classes": 10}}, "raise epsilon"),
    ],
)
def test_what_cannot_be_whitened_is_named(
    changes: dict[str, object], message: str, tmp_path: Path
) -> None:
    if "architecture" in changes:
        changes |= {"architecture_args": {}}
    with pytest.raises(InputError, match=message):
        train_tiny(tmp_path / "checkpoint.pt", **changes)
