"""The command: train by a recipe, and write the submission."""

from __future__ import annotations

import contextlib
import platform
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import filelock
import torch

import bench
from bench.candidates.submission import FILE, NAME, Submission, read_submission
from bench.data import default_data_dir, load, named_dataset
from bench.errors import EvaluationError, InputError
from bench.memory.out_of_memory import is_out_of_memory
from bench.precision import tensor_cores
from bench.training.choice_file import FILE as CHOICE
from bench.training.data import FolderData, TrainingData
from bench.training.files import WEIGHTS, check_same_training, write_submission
from bench.training.network import NetworkSettings
from bench.training.presets import Preset, override, presets
from bench.training.recipe import (
    Conditions,
    ProgressCallback,
    Trained,
    TrainingSettings,
    find_recipe,
    ignore,
)
from bench.training.start import find_start
from bench.validation.seeds import check_seed

CHECKPOINT = "checkpoint.pt"
PROGRESS = (CHECKPOINT, CHOICE)
"""Files that a training goes on from."""
PACKAGES = ("torch", "torchvision", "timm", "robustbench", "numpy")


@tensor_cores(False)
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

    Float32 is float32 here: no product is rounded to TF32.

    While it runs, the folder holds `checkpoint.pt`, written after every epoch, and `choice.pt`,
    written after each of a mix's numbers that were attacked. They are deleted when the submission
    is complete.

    Args:
        recipe: The name of one of `recipes()`.
        preset: The name of one of `presets()`.
        data_dir: Where the data set's files are; None takes `bench.data.default_data_dir()`.
        out: The submission's folder; its name becomes the submission's.
        seed: Decides the initial weights and every draw.
        overrides: Settings that differ from the preset's; see `override`.
        progress: Called every few steps and after every epoch.
        resume: Continue from these files, if the folder has them. A finished training with the
            same settings is not repeated.
        device: Where the training runs, as torch names it.

    Returns:
        The submission as written.

    Raises:
        InputError: If a name, a setting, the seed or the data is wrong, or the folder is in use.
        EvaluationError: If memory runs out, the loss is no longer finite, or the folder cannot be
            written to.
    """
    check_seed(seed)
    chosen = _preset(recipe, preset)
    settings = override(chosen.settings, overrides or {})
    if not re.fullmatch(NAME, out.resolve().name):
        raise InputError(
            f"expected a folder whose name can be a submission's (letters, digits, ., _ and -), "
            f"got {out}"
        )
    with _locked(out):
        finished = _finished(out, preset, settings, seed, resume)
        if finished is not None:
            return finished
        data = _training_data(chosen.dataset, data_dir)
        conditions = Conditions(seed, out / CHECKPOINT, resume, progress, device)
        try:
            trained = _trained(recipe, settings, data, conditions)
            submission = write_submission(
                out,
                trained,
                dataset=chosen.dataset,
                threat_models=settings.threat_models(),
                paper=chosen.paper,
                training=_record(recipe, preset, settings, conditions, trained),
            )
            _delete_progress(out)
        except OSError as error:
            raise _writing_error(out, error) from error
        return submission


@contextlib.contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Lock a submission's folder for this process; the lock ends with it, even if it is killed.

    Raises:
        InputError: Another training writes into the folder.
        EvaluationError: The lock cannot be written.
    """
    # Beside the folder, which may not be there yet and has a submission's files alone.
    path = out.resolve().with_name(f".{out.resolve().name}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(path, timeout=0):
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
    except filelock.Timeout as error:
        raise InputError(
            f"{out}: another training writes into this folder; wait for it, or name another --out"
        ) from error
    except PermissionError as error:
        raise _writing_error(out, error) from error


def _trained(
    recipe: str, settings: TrainingSettings, data: TrainingData, conditions: Conditions
) -> Trained:
    """Train by a recipe.

    Raises:
        EvaluationError: If memory runs out.
    """
    try:
        return find_recipe(recipe).train(settings, data, conditions)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise EvaluationError(
            f"out of memory on device {conditions.device} while training; lower batch_size, or use "
            "a device with more memory"
        ) from error


def _writing_error(out: Path, error: OSError) -> EvaluationError:
    """Return the error for a folder that cannot be written to, such as on a full disk."""
    return EvaluationError(
        f"{error.filename or out}: {error.strerror or error}; make room or choose another "
        "--out; --resume continues from the last checkpoint"
    )


def _preset(recipe: str, preset: str) -> Preset:
    find_recipe(recipe)
    known_presets = presets()
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
    out: Path, preset: str, settings: TrainingSettings, seed: int, resume: bool
) -> Submission | None:
    """Return the submission in a folder, if the same training has already finished there."""
    description = out / FILE
    if not resume:
        for name in (FILE, *PROGRESS):
            path = out / name
            if path.exists():
                raise InputError(
                    f"expected a new folder, got {out}, which has a {path.name}; name another, "
                    "delete it, or pass --resume to continue"
                )
        return None
    if not description.exists():
        return None
    submission = read_submission(out)
    asked = {"preset": preset, "seed": seed, "settings": settings.model_dump(mode="json")}
    begins = isinstance(settings, NetworkSettings)
    if isinstance(settings, NetworkSettings) and settings.start is not None:
        # A file may have other weights by now.
        asked["start_sha256"] = find_start(settings.start).sha256
    made = {key: submission.training.get(key) for key in asked}
    advice = f"; to train on from its weights, use another folder and --set start={out}"
    check_same_training(description, made, asked, advice if begins else "")
    # A kill before they were deleted leaves them beside the finished submission.
    _delete_progress(out)
    return submission


def _delete_progress(out: Path) -> None:
    """Delete what a training goes on from, and what a kill while writing a file has left."""
    for name in PROGRESS:
        (out / name).unlink(missing_ok=True)
    for name in (*PROGRESS, WEIGHTS, FILE):
        for unfinished in out.glob(f".{name}.*.tmp"):
            unfinished.unlink(missing_ok=True)


def _training_data(dataset: str, data_dir: Path | None) -> TrainingData:
    """Load the training images: into memory, or from a folder where they are too many."""
    folder = named_dataset(dataset).training_folder
    if folder is not None:
        return FolderData(dataset, (data_dir or default_data_dir()) / folder)
    return load(dataset, "train", data_dir)


def _record(
    recipe: str, preset: str, settings: TrainingSettings, conditions: Conditions, trained: Trained
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
