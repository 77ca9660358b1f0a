"""Trains a network by a recipe and writes the submission."""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import bench
from bench.candidates.submission import FILE, NAME, Submission, read_submission
from bench.data import default_data_dir, load, named_dataset
from bench.errors import InputError
from bench.training.image_folder import FolderData
from bench.training.presets import Preset, presets
from bench.training.progress import ProgressCallback, ignore
from bench.training.recipes import recipes
from bench.training.settings import Settings
from bench.training.submission_folder import write_submission
from bench.training.trained import Conditions, Trained, TrainingData
from bench.validation import validate
from bench.yaml_loader import parse_yaml

CHECKPOINT = "checkpoint.pt"
PACKAGES = ("torch", "torchvision", "timm", "robustbench", "numpy")


def run(
    recipe: str,
    preset: str,
    data_dir: Path | None,
    out: Path,
    seed: int = 0,
    overrides: Mapping[str, Any] | None = None,
    progress: ProgressCallback = ignore,
    resume: bool = False,
    device: str = "cpu",
) -> Submission:
    """Train, and write `submission.yaml` and the weights that were trained into a folder.

    While it runs, the folder holds `checkpoint.pt`, written after every epoch; the checkpoint goes
    when the submission is complete.

    Args:
        recipe: Name of one of `recipes()`.
        preset: Name of one of `presets()`.
        data_dir: Where the data set's files lie; None takes `bench.data.default_data_dir()`.
        out: The submission's folder; its name becomes the submission's.
        seed: Of the initial weights and of every draw.
        overrides: Settings that differ from the preset's. A text is read as YAML, eps also as a
            fraction; `architecture_args.<name>` sets one argument of the architecture.
        progress: Called every few steps and after every epoch.
        resume: Go on from the folder's checkpoint, if it has one. A finished training of the same
            settings is left as it is.
        device: Where the training runs, as torch names it.

    Returns:
        The submission as written.

    Raises:
        InputError: If a name, a setting or the data is wrong, or the folder is in use.
    """
    chosen = _preset(recipe, preset)
    settings = override(chosen.settings, overrides or {})
    if not re.fullmatch(NAME, out.resolve().name):
        raise InputError(
            f"expected a folder whose name can be a submission's (letters, digits, ., _ and -), "
            f"got {out}"
        )
    finished = _finished(out, preset, settings, seed, resume)
    if finished is not None:
        return finished
    data = _training_data(chosen.dataset, data_dir)
    conditions = Conditions(seed, out / CHECKPOINT, resume, progress, device)
    trained = recipes()[recipe].train(settings, data, conditions)
    submission = write_submission(
        out,
        trained,
        dataset=chosen.dataset,
        threat_models=settings.threat_models(),
        paper=chosen.paper,
        training=_record(recipe, preset, settings, conditions, trained),
    )
    (out / CHECKPOINT).unlink(missing_ok=True)
    return submission


def override(settings: Settings, overrides: Mapping[str, Any]) -> Settings:
    """The settings with some fields replaced, validated anew.

    Raises:
        InputError: If there is no such field, or its value is not allowed.
    """
    content = settings.model_dump()
    for key, value in overrides.items():
        try:
            parsed = parse_yaml(value) if isinstance(value, str) else value
        except InputError as error:
            raise InputError(
                f"setting {key}: expected a YAML value, got {value!r}: {error}"
            ) from error
        field, _, argument = key.partition(".")
        if argument and field == "architecture_args" and field in content:
            content[field] = {**content[field], argument: parsed}
        else:
            content[key] = parsed
    return validate(type(settings), content, "settings")


def _preset(recipe: str, preset: str) -> Preset:
    known_recipes, known_presets = recipes(), presets()
    if recipe not in known_recipes:
        raise InputError(f"expected a recipe among {', '.join(known_recipes)}, got {recipe!r}")
    if preset not in known_presets:
        raise InputError(f"expected a preset among {', '.join(known_presets)}, got {preset!r}")
    chosen = known_presets[preset]
    if chosen.recipe != recipe:
        fitting = ", ".join(name for name, each in known_presets.items() if each.recipe == recipe)
        raise InputError(
            f"expected a preset of the recipe {recipe} ({fitting}), got {preset!r}, one of "
            f"{chosen.recipe}"
        )
    return chosen


def _finished(
    out: Path, preset: str, settings: Settings, seed: int, resume: bool
) -> Submission | None:
    """The submission in `out`, if this very training has already finished there."""
    checkpoint, description = out / CHECKPOINT, out / FILE
    if not resume:
        for path in (description, checkpoint):
            if path.exists():
                raise InputError(
                    f"expected a new folder, got {out}, which has a {path.name}; name another, "
                    "remove it, or pass --resume to go on"
                )
        return None
    if not description.exists():
        return None
    submission = read_submission(out)
    asked = {"preset": preset, "seed": seed, "settings": settings.model_dump(mode="json")}
    came = {key: submission.training.get(key) for key in asked}
    if came != asked:
        raise InputError(
            f"{description}: expected the submission of this training, {asked}, got that of "
            f"{came}; name another folder"
        )
    # A kill between the two leaves a checkpoint beside the finished submission.
    checkpoint.unlink(missing_ok=True)
    return submission


def _training_data(dataset: str, data_dir: Path | None) -> TrainingData:
    """Return the training images: in memory, or in a folder where they are too many."""
    folder = named_dataset(dataset).training_folder
    if folder is not None:
        return FolderData(dataset, (data_dir or default_data_dir()) / folder)
    return load(dataset, "train", data_dir)


def _record(
    recipe: str, preset: str, settings: Settings, conditions: Conditions, trained: Trained
) -> dict[str, Any]:
    return {
        "recipe": recipe,
        "preset": preset,
        "seed": conditions.seed,
        "settings": settings.model_dump(mode="json"),
        **trained.record,
        "measurements": [
            {
                "epoch": each.epoch,
                "clean_accuracy": round(each.clean_accuracy, 4),
                "robust_accuracy": (
                    None if each.robust_accuracy is None else round(each.robust_accuracy, 4)
                ),
            }
            for each in trained.measurements
        ],
        "versions": {
            "python": platform.python_version(),
            "bench": bench.__version__,
            **{package: _version(package) for package in PACKAGES},
        },
        "device": conditions.device,
        "threads": torch.get_num_threads(),
        "started": trained.started,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(trained.seconds, 1),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
