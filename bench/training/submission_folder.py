"""Writes a trained network as a submission: weights.safetensors and submission.yaml."""

from __future__ import annotations

import os
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save
from torch import Tensor, nn

from bench.candidates.candidate import Paper
from bench.candidates.submission import FILE, Submission
from bench.candidates.weights import file_sha256
from bench.validation import validate

WEIGHTS = "weights.safetensors"


def write_submission(
    folder: Path,
    network: nn.Module,
    *,
    dataset: str,
    threat_models: Sequence[dict[str, Any]],
    architecture: str,
    architecture_args: dict[str, Any],
    paper: Paper,
    training: dict[str, Any],
) -> Submission:
    """Write the two files, the description last: with it the submission is complete.

    Args:
        folder: Its name is the submission's.
        network: The trained network.
        dataset: Name of the data set that it classifies.
        threat_models: What it was trained to withstand, as ``norm`` and ``eps``.
        architecture: ``module:function`` that builds the network.
        architecture_args: The function's arguments.
        paper: Where the method was published.
        training: How it was trained; free in form, but plain values only.

    Raises:
        InputError: If the name of the folder or a field is not what a submission may have.
    """
    content = {
        "name": folder.name,
        "dataset": dataset,
        "threat_models": list(threat_models),
        "architecture": architecture,
        "architecture_args": architecture_args,
        "weights": WEIGHTS,
        "sha256": "0" * 64,
        "paper": paper.model_dump(),
        "training": training,
        "additional_data": False,
        "randomized": False,
    }
    validate(Submission, content, folder / FILE)
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / WEIGHTS, save(compact(network.state_dict())))
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


def readable_radius(eps: float) -> str | float:
    """The radius as the field writes it: 0.2, but 8/255 for 0.03137254901960784."""
    levels = round(eps * 255)
    is_fraction = levels > 0 and float(Fraction(levels, 255)) == eps
    return f"{levels}/255" if is_fraction and len(repr(eps)) > len("0.0314") else eps


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_name(path.name + ".part")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
