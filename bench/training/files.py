"""The files of a training: its checkpoint, and the submission that it ends in."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save
from torch import Tensor

from bench.candidates.candidate import Paper
from bench.candidates.submission import FILE, Submission
from bench.errors import InputError
from bench.store.files import write
from bench.training.recipe import Trained
from bench.validation import validate

WEIGHTS = "weights.safetensors"
SHOWN = 5
"""How many differences between two trainings a message names."""


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain values to a file, as a whole or not at all.

    A kill at any instant leaves either the former checkpoint or this one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write(path, buffer.getvalue())


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read what ``save_checkpoint`` wrote. Nothing in the file is executed.

    Raises:
        InputError: If the file is not such a checkpoint.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes make torch raise almost anything
        reason = " ".join(str(error).split())[:160]
        raise InputError(
            f"{path}: expected a checkpoint of a training, got a file that torch cannot read "
            f"({type(error).__name__}: {reason}); delete it to start anew"
        ) from error
    if not isinstance(state, dict):
        raise InputError(
            f"{path}: expected a checkpoint of a training, got a {type(state).__name__}; "
            "delete it to start anew"
        )
    return state


def check_same_training(
    path: Path, made: object, asked: Mapping[str, Any], advice: str = ""
) -> None:
    """Refuse to go on with the files of another training.

    Args:
        path: The file, for the message.
        made: What decided the training in the file, as `asked` says it; None if it does not say.
        asked: What decides this one: plain values by name; those of `settings` are called as
            `--set` calls them.
        advice: What else can be done, for the message.

    Raises:
        InputError: If they differ; it names what does.
    """
    if not isinstance(made, Mapping) or not any(made.get(name) for name in asked):
        raise InputError(
            f"{path}: expected a file that says how it was trained, got one that does not; name "
            f"another folder{advice}"
        )
    old, new = _by_name(made), _by_name(asked)
    names = [name for name in {**new, **old} if old.get(name) != new.get(name)]
    if names:
        raise InputError(
            f"{path}: made with {_assignments(names, old)}, asked for {_assignments(names, new)}; "
            f"repeat its settings, or name another folder{advice}"
        )


def _by_name(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested values by names with dots; what stands in `settings` without that name."""
    found: dict[str, Any] = {}
    for name, value in content.items():
        if isinstance(value, Mapping):
            inner = "" if (prefix, name) == ("", "settings") else f"{prefix}{name}."
            found |= _by_name(value, inner)
        else:
            found[f"{prefix}{name}"] = value
    return found


def _assignments(names: Sequence[str], values: Mapping[str, Any]) -> str:
    """Return the first values as `--set` takes them, and how many more there are."""
    shown = [f"{name}={_as_yaml(values.get(name))}" for name in names[:SHOWN]]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def _as_yaml(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def write_submission(
    folder: Path,
    trained: Trained,
    *,
    dataset: str,
    threat_models: Sequence[dict[str, Any]],
    paper: Paper,
    training: dict[str, Any],
) -> Submission:
    """Write the weights, if there are any, and then the description, which completes it.

    Args:
        folder: The submission's folder; its name becomes the submission's.
        trained: What was trained.
        dataset: The name of the data set.
        threat_models: The threat models of the training, as ``norm`` and ``eps``.
        paper: Where the method was published.
        training: A record of the training, in plain values.

    Raises:
        InputError: If the folder's name or a field is not valid in a submission.
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
    if trained.surrogate:
        content["surrogate"] = trained.surrogate
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
        weights = save(compact(trained.network.state_dict()))
        write(folder / WEIGHTS, weights)
        content["sha256"] = hashlib.sha256(weights).hexdigest()
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)
    write(folder / FILE, text.encode())
    return validate(Submission, content, folder / FILE)


def compact(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict with the weights of convolutions and linear layers in float16.

    Biases and batch normalisation keep their precision: they are few, and a running variance may
    exceed float16's range.
    """
    return {
        name: (tensor.half() if tensor.ndim > 1 and tensor.dtype == torch.float32 else tensor)
        .cpu()
        .contiguous()
        for name, tensor in state.items()
    }
