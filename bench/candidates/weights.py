"""Weights files: reading them without running code from them, and loading them into modules."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
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
        raise InputError(f"{path}: the weights do not fit the architecture: {shown}")
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
    except Exception as error:  # pickle's errors, and what a damaged zip raises
        raise InputError(f"{path}: refused, it holds more than tensors: {error}") from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    flat = _flat(state) if isinstance(state, dict) else None
    if flat is None:
        raise InputError(f"{path}: expected a mapping of names to tensors")
    return flat


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
