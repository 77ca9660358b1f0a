"""Writes what a recipe made as a submission: submission.yaml, and weights.safetensors."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save
from torch import Tensor

from bench.candidates.candidate import Paper
from bench.candidates.submission import FILE, Submission
from bench.candidates.weights import file_sha256
from bench.training.trained import Trained
from bench.validation import validate

WEIGHTS = "weights.safetensors"


def write_submission(
    folder: Path,
    trained: Trained,
    *,
    dataset: str,
    threat_models: Sequence[dict[str, Any]],
    paper: Paper,
    training: dict[str, Any],
) -> Submission:
    """Write weights, if there are any, and the description; with it the submission is complete.

    Args:
        folder: Its name is the submission's.
        trained: What was trained.
        dataset: Name of the data set that it classifies.
        threat_models: What it was trained to withstand, as ``norm`` and ``eps``.
        paper: Where the method was published.
        training: How it was trained; free in form, but plain values only.

    Raises:
        InputError: If the name of the folder or a field is not what a submission may have.
    """
    content: dict[str, Any] = {
        "name": folder.name,
        "dataset": dataset,
        "threat_models": list(threat_models),
        "architecture": trained.architecture,
        "architecture_args": trained.architecture_args,
    }
    if trained.bases:
        content["bases"] = dict(trained.bases)
    if trained.network is not None:
        content |= {"weights": WEIGHTS, "sha256": "0" * 64}
    content |= {
        "paper": paper.model_dump(),
        "training": training,
        "additional_data": False,
        "randomized": False,
    }
    validate(Submission, content, folder / FILE)
    folder.mkdir(parents=True, exist_ok=True)
    if trained.network is not None:
        _write(folder / WEIGHTS, save(compact(trained.network.state_dict())))
        content["sha256"] = file_sha256(folder / WEIGHTS)
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)
    _write(folder / FILE, text.encode())
    return validate(Submission, content, folder / FILE)


def compact(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict with the weights of convolutions and linear layers in float16.

    Biases and batch normalisation stay as they are: they are few, and a running variance may leave
    float16's range.
    """
    return {
        name: (tensor.half() if tensor.ndim > 1 and tensor.dtype == torch.float32 else tensor)
        .cpu()
        .contiguous()
        for name, tensor in state.items()
    }


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_name(path.name + ".part")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
