"""Weights files: reading them without running code from them, and loading them into modules."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from bench.errors import InputError


def load_weights(module: nn.Module, path: Path) -> None:
    """Load a .safetensors or a .pt file into a module, never running code from it.

    Raises:
        InputError: the file cannot be read, or its keys or shapes do not fit (which ones).
    """
    load_state(module, read_weights(path), path)


def load_state(module: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Load tensors by name, read from `path`, into a module; every key and shape must fit.

    Raises:
        InputError: some do not (which ones).
    """
    expected = module.state_dict()
    problems = [
        *(f"missing {key}" for key in expected if key not in state),
        *(f"unexpected {key}" for key in state if key not in expected),
        *(
            f"{key}: expected shape {tuple(expected[key].shape)}, got {tuple(state[key].shape)}"
            for key in expected
            if key in state and expected[key].shape != state[key].shape
        ),
    ]
    if problems:
        shown = "; ".join(problems[:8]) + (
            f"; and {len(problems) - 8} more" if len(problems) > 8 else ""
        )
        advice = _advice(state, expected)
        raise InputError(f"{path}: the weights do not fit the architecture: {shown}{advice}")
    module.load_state_dict(state)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors by name from a .safetensors or a .pt file, on the CPU.

    Raises:
        InputError: the file is damaged, holds anything but tensors, or is of another format.
    """
    readers: dict[str, Callable[[Path], Any]] = {
        ".safetensors": load_file,
        ".pt": lambda file: torch.load(file, map_location="cpu", weights_only=True),
    }
    readers[".pth"] = readers[".pt"]
    if path.suffix not in readers:
        raise InputError(f"{path}: expected weights in .safetensors, .pt or .pth")
    try:
        state = readers[path.suffix](path)
    except (SafetensorError, OSError, EOFError, ValueError, RuntimeError) as error:
        raise InputError(f"{path}: cannot be read as weights: {error}") from error
    except pickle.UnpicklingError as error:  # its text advises to load it nevertheless
        raise InputError(
            f"{path}: refused, it holds more than tensors; save module.state_dict()"
        ) from error
    except Exception as error:  # what a damaged zip or a file of another kind raises
        raise InputError(
            f"{path}: cannot be read as weights: {type(error).__name__}: {error}"
        ) from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict):
        raise InputError(
            f"{path}: expected a mapping of names to tensors, got {type(state).__name__}"
        )
    flat = _flat(state)
    if flat is None:
        raise InputError(
            f"{path}: expected a mapping of names to tensors, got one of {_shown(state)}; save "
            "module.state_dict() alone"
        )
    return flat


def _advice(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str:
    """What to save instead, where all names have one word before those that were expected."""
    if not state:
        return ""
    first = next(iter(state)).partition(".")[0] + "."
    if not all(name.startswith(first) and name.removeprefix(first) in expected for name in state):
        return ""
    if first == "module.":
        return (
            "; every name begins with 'module.', as of DataParallel: save net.module.state_dict()"
        )
    return f"; the file holds the names below {first[:-1]!r}: save what is there alone"


def _shown(names: Iterable[object], limit: int = 8) -> str:
    """The first names in a list."""
    listed = [str(name) for name in names]
    more = f" and {len(listed) - limit} more" if len(listed) > limit else ""
    return ", ".join(listed[:limit]) + more


def _flat(state: Mapping[str, Any]) -> dict[str, Tensor] | None:
    """Tensors by dotted names from nested mappings; None if anything else is in them."""
    flat: dict[str, Tensor] = {}
    for name, value in state.items():
        if isinstance(value, Tensor):
            flat[name] = value
        elif isinstance(value, Mapping) and (inner := _flat(value)) is not None:
            flat |= {f"{name}.{key}": tensor for key, tensor in inner.items()}
        else:
            return None
    return flat


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
