"""Trainings that begin from given weights."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import bench.training
from bench.candidates.registry import find_candidate, shipped_submissions
from bench.candidates.submission import FILE, read_submission
from bench.data import load
from bench.errors import InputError
from bench.suites.suite import load_suite
from bench.training import Conditions, Trained, override, presets, recipes
from bench.training.mix import BasesSettings, LoadedBases
from bench.training.start import find_start

DIGITS = load_suite("digits-linf")
STILL = {"epochs": 1, "peak_learning_rate": 1e-12, "average_decay": 0.0, "held_out": 0}


def shipped_network(name: str) -> nn.Module:
    return find_candidate(name, DIGITS).load().module


def train(recipe: str, start: str, seed: int = 5, **changes: object) -> Trained:
    preset = bench.training.presets()[bench.training.preset_for(recipe, "digits")]
    settings = override(preset.settings, STILL | {"start": start} | changes)
    return recipes()[recipe].train(settings, load("digits", "train").first(64), Conditions(seed))


@pytest.mark.parametrize("as_name", [True, False])
def test_a_training_without_steps_of_any_length_returns_the_weights_it_began_from(
    as_name: bool,
) -> None:
    folder = shipped_submissions()["digits-robust"]
    start = find_start("digits-robust" if as_name else str(folder))
    trained = train("adversarial", "digits-robust" if as_name else str(start.weights))
    assert trained.network is not None
    for name, tensor in shipped_network("digits-robust").named_parameters():
        assert torch.allclose(trained.network.get_parameter(name), tensor, atol=1e-9), name
    assert trained.record == {"start_sha256": read_submission(folder).sha256}


def test_a_smoothed_classifier_begins_from_another_ones_base() -> None:
    trained = train("smoothmix", "digits-gaussian", warm_up_epochs=1)
    assert trained.network is not None
    for name, tensor in shipped_network("digits-gaussian").named_parameters():
        assert torch.allclose(trained.network.get_parameter(name), tensor, atol=1e-9), name


def test_held_out_images_are_those_that_the_earlier_training_held_out() -> None:
    start = find_start("digits-robust")
    start = replace(start, training={"seed": 0, "settings": {"held_out": 100}})
    data = load("digits", "train")
    start.check_held_out(data, 100, seed=0)
    start.check_held_out(data, 20, seed=0)
    start.check_held_out(data, 0, seed=3)
    replace(start, dataset="cifar10").check_held_out(data, 100, seed=1)
    with pytest.raises(InputError, match=r"it held out 100 with seed 0: take its seed and no more"):
        start.check_held_out(data, 100, seed=1)
    with pytest.raises(InputError, match="got 1 that it was"):
        start.check_held_out(data, 101, seed=0)


def test_a_mix_is_chosen_on_images_that_its_bases_held_out() -> None:
    settings = presets()["digits-mix"].settings
    assert isinstance(settings, BasesSettings)
    bases = LoadedBases(settings, "digits")
    data = load("digits", "train")
    assert bases.images_seen(data, 60, seed=0) == {"accurate": 60, "robust": 60}
    bases.trainings["robust"] = {"seed": 0, "settings": {"held_out": 60}}
    assert bases.images_seen(data, 60, seed=0)["robust"] == 0
    with pytest.raises(InputError, match="that the robust base digits-robust was not trained on"):
        bases.images_seen(data, 60, seed=7)


def test_a_weights_file_beside_its_submission_is_that_submission() -> None:
    folder = shipped_submissions()["digits-robust"]
    assert find_start(str(folder / "weights.safetensors")) == find_start("digits-robust")
    with pytest.raises(InputError, match="got an empty text"):
        find_start("")


def test_a_finished_training_is_not_that_of_other_weights_to_begin_from(tmp_path: Path) -> None:
    start = tmp_path / "start.safetensors"
    settings = STILL | {"start": str(start), "images_per_epoch": 64}

    def run(source: str) -> None:
        shutil.copy(shipped_submissions()[source] / "weights.safetensors", start)
        out = tmp_path / "mine"
        bench.training.run(
            "standard", "digits-standard", None, out, overrides=settings, resume=True
        )

    run("digits-standard")
    run("digits-standard")
    with pytest.raises(InputError, match="made with start_sha256="):
        run("digits-robust")


def test_what_cannot_be_begun_from_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"got 'digits-robst'; did you mean digits-robust"):
        find_start("digits-robst")
    with pytest.raises(InputError, match="a network of its own and its weights"):
        find_start("digits-adaptive-mix")
    with pytest.raises(InputError, match=rf"a folder with a {FILE}"):
        find_start(str(tmp_path))
    with pytest.raises(InputError, match=r"setting start: .*the weights do not fit"):
        train("adversarial", "cifar10-robust")
