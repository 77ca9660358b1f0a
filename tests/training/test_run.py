"""Trainings: they learn, they are reproducible, they resume, they leave a whole submission."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

import bench.training
from bench.candidates.submission import read_submission
from bench.candidates.submission_reference import SubmissionReference
from bench.data import load
from bench.errors import EvaluationError, InputError
from bench.training import (
    Conditions,
    Trained,
    TrainingProgress,
    TriedNumbers,
    clean_accuracy,
    override,
    recipes,
)
from bench.training.files import load_checkpoint

TINY = {
    "epochs": 3,
    "batch_size": 16,
    "architecture_args.widths": [4, 4],
    "held_out": 10,
    "measure_every": 2,
}
TINY_ROBUST = TINY | {"attack_steps": 2}


class Killed(Exception):
    """Raised by a callback in place of a kill."""


def train_tiny(recipe: str, checkpoint: Path, kill_after: int | None = None, **changes) -> Trained:  # type: ignore[no-untyped-def]
    data = load("digits", "train").first(100)
    preset = bench.training.presets()[bench.training.preset_for(recipe, "digits")]
    tiny = TINY_ROBUST if recipe == "adversarial" else TINY

    def progress(state: TrainingProgress) -> None:
        if state.epoch == kill_after:
            raise Killed

    return recipes()[recipe].train(
        override(preset.settings, tiny | changes),
        data,
        Conditions(5, checkpoint, resume=True, progress=progress),
    )


@pytest.mark.parametrize("recipe", ["standard", "adversarial"])
def test_a_killed_training_resumes_to_the_weights_of_an_uninterrupted_one(
    recipe: str, tmp_path: Path
) -> None:
    whole = train_tiny(recipe, tmp_path / "whole.pt")
    with pytest.raises(Killed):
        train_tiny(recipe, tmp_path / "killed.pt", kill_after=1)
    resumed = train_tiny(recipe, tmp_path / "killed.pt")
    assert resumed.network is not None
    assert whole.network is not None
    state, expected = resumed.network.state_dict(), whole.network.state_dict()
    assert all(torch.equal(state[name], expected[name]) for name in expected)
    assert resumed.measurements == whole.measurements
    assert [each.epoch for each in whole.measurements] == [2, 3]
    assert (whole.measurements[0].robust_accuracy is None) == (recipe == "standard")


def test_a_checkpoint_of_another_training_or_a_broken_one_is_refused(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint.pt"
    train_tiny("standard", checkpoint, epochs=1)
    with pytest.raises(InputError, match=r"made with epochs=1, asked for epochs=3; repeat its"):
        train_tiny("standard", checkpoint)
    checkpoint.write_bytes(b"nothing")
    with pytest.raises(InputError, match="delete it to start anew"):
        train_tiny("standard", checkpoint)


@given(content=st.binary(max_size=200))
def test_any_damaged_checkpoint_is_refused(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "checkpoint.pt"
        for damaged in (content, b"junk\n"):
            path.write_bytes(damaged)
            with pytest.raises(InputError, match="delete it to start anew"):
                load_checkpoint(path)


def test_the_digits_preset_learns_in_seconds_and_leaves_a_submission(tmp_path: Path) -> None:
    out, states = tmp_path / "quick", list[TrainingProgress]()
    arguments = ("standard", "digits-standard", None, out, 1, {"epochs": "4"})
    written = bench.training.run(*arguments, progress=states.append)
    assert [state.epoch for state in states if state.step == state.steps] == [4]
    assert sorted(path.name for path in out.iterdir()) == ["submission.yaml", "weights.safetensors"]
    assert read_submission(out) == written
    fields = yaml.safe_load((out / "submission.yaml").read_text())
    assert set(fields) == {
        *("name", "dataset", "threat_models", "architecture", "architecture_args", "weights"),
        *("sha256", "paper", "training", "additional_data", "randomized"),
    }
    assert {"recipe", "preset", "seed", "settings", "versions", "seconds", "device", "started"} <= (
        set(fields["training"])
    )
    network = SubmissionReference(out, written, False, tmp_path).load().module
    test = load("digits", "test")
    assert clean_accuracy(network, test.images, test.labels, "float32") > 0.9

    with pytest.raises(InputError, match="expected a new folder"):
        bench.training.run(*arguments)
    before = (out / "weights.safetensors").stat().st_mtime_ns
    assert bench.training.run(*arguments, resume=True) == written
    assert (out / "weights.safetensors").stat().st_mtime_ns == before
    expected = (
        r"made with epochs=4, asked for epochs=5; repeat its settings, or name another folder; to "
        rf"train on from its weights, use another folder and --set start={out}$"
    )
    with pytest.raises(InputError, match=expected):
        bench.training.run(*arguments[:-1], {"epochs": "5"}, resume=True)
    fields["training"] = {}
    (out / "submission.yaml").write_text(yaml.safe_dump(fields))
    with pytest.raises(InputError, match="expected a file that says how it was trained"):
        bench.training.run(*arguments, resume=True)


def test_a_robust_submission_names_its_threat_model(tmp_path: Path) -> None:
    arguments = ("adversarial", "digits-robust", None, tmp_path / "robust")
    changes = {"epochs": 1, "batch_size": 700, "eps": "1/10", "architecture_args.widths": "[4]"}
    written = bench.training.run(*arguments, overrides=changes)
    (threat_model,) = written.threat_models
    assert (threat_model.norm, threat_model.eps) == ("Linf", 0.1)
    assert written.architecture_args == {"widths": [4]}


@pytest.mark.parametrize(
    ("recipe", "preset", "overrides", "message"),
    [
        (
            "nonsense",
            "digits-standard",
            {},
            r"expected a registered recipe \(adversarial, consistency",
        ),
        ("standard", "nonsense", {}, "expected a preset among digits-standard"),
        ("standard", "digits-robust", {}, "expected a preset of the recipe standard"),
        ("standard", "digits-standard", {"epoch": "1"}, "settings: field epoch"),
        ("standard", "digits-standard", {"epochs": "0"}, "settings: field epochs"),
        ("standard", "digits-standard", {"epochs": "["}, "setting epochs: expected a YAML value"),
        ("standard", "digits-standard", {"architecture": "nowhere"}, "module:function"),
        ("standard", "digits-standard", {"architecture_args.size": "1"}, "architecture_args"),
        ("standard", "digits-standard", {"architecture_args.num_classes": "5"}, "K >= 10"),
        (
            "standard",
            "digits-standard",
            {
                "architecture": "torch.nn:Linear",
                "architecture_args": {"in_features": 3, "out_features": 10},
            },
            "expected a network that takes images",
        ),
        ("standard", "digits-standard", {"held_out": "1437"}, "expected held_out below the 1437"),
    ],
)
def test_wrong_input_is_named_before_anything_is_written(
    recipe: str, preset: str, overrides: dict[str, str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        bench.training.run(recipe, preset, None, tmp_path / "out", 0, overrides)
    assert not (tmp_path / "out").exists()


def test_a_training_that_diverges_or_runs_out_of_memory_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("standard", "digits-standard", None, tmp_path / "out")
    changes = {"batch_size": 700, "architecture_args.widths": "[4]"}
    with pytest.raises(EvaluationError, match="expected a finite training loss, got nan"):
        bench.training.run(*arguments, overrides=changes | {"peak_learning_rate": 1e30})

    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("torch.optim.SGD.step", fail)
    with pytest.raises(EvaluationError, match="out of memory on device cpu while training"):
        bench.training.run(*arguments, overrides=changes)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_name_a_submission_is_refused_before_the_training(
    tmp_path: Path,
) -> None:
    with pytest.raises(InputError, match="expected a folder whose name can be a submission's"):
        bench.training.run("standard", "digits-standard", None, tmp_path / "a,b")
    assert not (tmp_path / "a,b").exists()


def test_every_preset_belongs_to_a_recipe_and_is_found_by_it() -> None:
    known = recipes()
    for name, preset in bench.training.presets().items():
        assert type(preset.settings) is known[preset.recipe].settings_type
        default = bench.training.preset_for(preset.recipe, preset.dataset)
        assert name.startswith(default)
    with pytest.raises(InputError, match="for the recipe standard; got 'imagenet'"):
        bench.training.preset_for("standard", "imagenet")


def test_an_unfinished_training_is_not_overwritten_by_a_new_one(tmp_path: Path) -> None:
    out = tmp_path / "half"

    def kill(state: TrainingProgress) -> None:
        if state.epoch == 1:
            raise Killed

    arguments = ("standard", "digits-standard", None, out, 0, TINY | {"batch_size": 300})
    with pytest.raises(Killed):
        bench.training.run(*arguments, progress=kill)
    with pytest.raises(InputError, match="--resume"):
        bench.training.run(*arguments)
    submission = bench.training.run(*arguments, resume=True)
    assert submission.name == "half"
    assert not (out / "checkpoint.pt").exists()


def test_two_trainings_into_one_folder_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "mine"

    def second(state: TrainingProgress | TriedNumbers) -> None:
        with pytest.raises(InputError, match="another training writes into this folder"):
            bench.training.run("standard", "digits-standard", None, out, seed=1, overrides=TINY)
        raise Killed

    with pytest.raises(Killed):
        bench.training.run(
            "standard", "digits-standard", None, out, overrides=TINY, progress=second
        )


def test_a_reflected_border_is_narrower_than_the_image(tmp_path: Path) -> None:
    wide = TINY | {"crop_padding": 8, "crop_border": "reflected"}
    with pytest.raises(InputError, match="expected less than the 8 pixels of a side of digits"):
        bench.training.run("standard", "digits-standard", None, tmp_path / "w", overrides=wide)
