"""Checkpoints: files from which a killed training goes on."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import torch

from bench.errors import InputError


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain values to a file, whole or not at all.

    The bytes reach the disk under another name first: a kill at any instant leaves either the
    former checkpoint or this one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    with temporary.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read what ``save_checkpoint`` wrote. Nothing in the file is executed.

    Raises:
        InputError: If the file is not such a checkpoint.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise InputError(
            f"{path}: expected a checkpoint of a training, got a file that torch cannot read "
            f"({error}); delete it to start anew"
        ) from error
    if not isinstance(state, dict):
        raise InputError(
            f"{path}: expected a checkpoint of a training, got a {type(state).__name__}; "
            "delete it to start anew"
        )
    return state
