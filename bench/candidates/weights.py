"""Weights files into modules: torch decides which reading of a file fits; if none, say why."""

from __future__ import annotations

import copy
import hashlib
import json
import re
import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.candidates.checkpoints import (
    Reading,
    keys_beside,
    keys_with_tensors,
    listed,
    mappings,
    partial_keys,
    readings,
)
from bench.candidates.tensor_files import read_tensor_file
from bench.errors import InputError

MOST_TRIALS = 64
"""Readings that are tried, those first whose names are the module's own."""
KEY_FIELD = "weights_key"


@dataclass(frozen=True)
class _Trial:
    """What became of a reading: the module's values after loading it, or why it does not fit."""

    reading: Reading
    values: Mapping[str, Any]
    problem: str = ""


def load_weights(
    module: nn.Module,
    path: Path,
    key: str | None = None,
    check: Callable[[Mapping[str, Tensor]], None] | None = None,
) -> list[str]:
    """Load a weights file into a module, without running code from it.

    The file may be a state dict, or hold one below a key and with a wrapper's words in its names
    (`bench.candidates.checkpoints`). A reading fits if `load_state_dict(strict=True)` accepts it.
    Readings are tried on copies: a file that does not fit leaves the module as it was.

    Args:
        key: the key in the file that is meant, where several readings would fit.
        check: is shown the nearest reading where none fits, and may raise a better explanation.

    Returns:
        what the user should know of it: how it was read if not plainly, and values that are not
        finite or were converted.

    Raises:
        InputError: the file cannot be read, no reading fits (what differs, and what to do), or
            several do with different values (which ones).
    """
    content = read_tensor_file(path, "weights")
    expected = _expected(module, path)
    try:
        found = readings(content, expected, key)
    except KeyError as error:
        raise InputError(
            f"{path}: {KEY_FIELD}: expected a key of the file, got {key!r}; it has "
            f"{listed(keys_with_tensors(content)) or 'no keys above its tensors'}"
        ) from error
    if not found:
        raise InputError(_no_tensors(path, content))
    trials = [_try(module, each, expected) for each in _plausible(found, expected)]
    fits = _distinct([each for each in trials if not each.problem], key)
    if len(fits) > 1:
        shown = "; ".join(f"`{each.reading.key}` ({each.reading})" for each in fits[:6])
        more = f"; and {len(fits) - 6} more" if len(fits) > 6 else ""
        raise InputError(
            f"{path}: {len(fits)} sets of weights in it fit the architecture, with different "
            f"values: {shown}{more}. Choose one in submission.yaml, such as "
            f"`{_field(fits[0].reading.key)}`"
        )
    if fits:
        problem = _load(module, fits[0].reading)
        if not problem:
            return _notes(module, fits[0].reading, content)
        raise InputError(f"{path}: the weights do not fit the architecture: {problem}")
    nearest = max(trials, key=lambda each: _nearness(each.reading, expected))
    if check is not None:
        check(nearest.reading.state)
    raise InputError(_misfit(path, module, nearest, expected, content))


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _expected(module: nn.Module, path: Path) -> dict[str, Any]:
    try:
        return dict(module.state_dict())
    except Exception as error:
        raise InputError(
            f"{path}: cannot be loaded, since the architecture has no state_dict(): "
            f"{type(error).__name__}: {error}"
        ) from error


def _plausible(found: Sequence[Reading], expected: Mapping[str, Any]) -> list[Reading]:
    """Return the readings worth trying: with names of the module, or unchanged.

    The latter are for modules whose hooks know all the names of a file, and none is the module's.
    """
    parts = {name.rpartition(".")[0] for name in expected} - {""}
    parts |= {".".join(part.split(".")[:count]) for part in parts for count in range(1, 9)}

    def is_plausible(reading: Reading) -> bool:
        return any(name in expected or name.rpartition(".")[0] in parts for name in reading.state)

    chosen = [
        each
        for each in found
        if is_plausible(each) or not (each.removed or each.unwrapped or each.added)
    ]
    # A stable sort: of equally near ones, those that change less come first.
    return sorted(chosen, key=lambda each: _nearness(each, expected), reverse=True)[:MOST_TRIALS]


def _nearness(reading: Reading, expected: Mapping[str, Any]) -> tuple[int, int, int]:
    """Return how much of a module a reading has: names and shapes, names, few others."""
    names = [name for name in reading.state if name in expected]
    shapes = sum(_shape(reading.state[name]) == _shape(expected[name]) for name in names)
    return shapes, len(names), len(names) - len(reading.state)


def _is_exact(reading: Reading, expected: Mapping[str, Any]) -> bool:
    return _nearness(reading, expected) == (len(expected), len(expected), 0)


def _try(module: nn.Module, reading: Reading, expected: Mapping[str, Any]) -> _Trial:
    """Load a reading into a copy of the module; no need to, where all names and shapes agree."""
    if _is_exact(reading, expected):
        return _Trial(reading, reading.state)
    try:
        trial = copy.deepcopy(module)
    except Exception:
        return _try_in_place(module, reading)
    problem = _load(trial, reading)
    return _Trial(reading, {} if problem else dict(trial.state_dict()), problem)


def _try_in_place(module: nn.Module, reading: Reading) -> _Trial:
    """Load a reading into a module that cannot be copied, and put its own values back."""
    before = {name: _clone(value) for name, value in module.state_dict().items()}
    problem = _load(module, reading)
    values = {} if problem else {name: _clone(v) for name, v in module.state_dict().items()}
    with torch.no_grad():
        for name, value in module.state_dict().items():
            if isinstance(value, Tensor):
                value.copy_(before[name])
    return _Trial(reading, values, problem)


def _load(module: nn.Module, reading: Reading) -> str:
    """Load a reading as torch does; returns what torch says against it, and else nothing."""
    state = OrderedDict(reading.state)
    if (metadata := getattr(reading.state, "_metadata", None)) is not None:
        state._metadata = copy.deepcopy(metadata)  # type: ignore[attr-defined]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            missed = module.load_state_dict(state)
    except Exception as error:  # an architecture's own hooks may raise anything
        return _problems(str(error)) or f"{type(error).__name__}: {' '.join(str(error).split())}"
    # An architecture's own load_state_dict may pass over what is missing.
    problems = [f"missing {name}" for name in getattr(missed, "missing_keys", ())]
    problems += [f"unexpected {name}" for name in getattr(missed, "unexpected_keys", ())]
    return _first(problems)


def _problems(text: str) -> str:
    """Return torch's message on a state dict that does not fit, in one line."""
    problems: list[str] = []
    head, *lines = text.splitlines() or [""]
    if not head.startswith("Error(s) in loading state_dict"):
        return ""
    for line in map(str.strip, lines):
        shapes = re.findall(r"torch\.Size\(\[([\d, ]*)\]\)", line)
        if line.startswith(("Missing key", "Unexpected key")):
            word = line.partition(" ")[0].lower()
            problems += [f"{word} {name}" for name in re.findall(r'"([^"]*)"', line)]
        elif line.startswith("size mismatch for ") and len(shapes) == 2:
            name = line.removeprefix("size mismatch for ").partition(": copying")[0]
            came, wanted = (tuple(map(int, re.findall(r"\d+", shape))) for shape in shapes)
            problems.append(f"{name}: expected shape {wanted}, got {came}")
        elif line:
            problems.append(line)
    return _first(problems)


def _first(problems: Sequence[str], limit: int = 8) -> str:
    more = f"; and {len(problems) - limit} more" if len(problems) > limit else ""
    return "; ".join(problems[:limit]) + more


def _distinct(fits: Sequence[_Trial], key: str | None) -> list[_Trial]:
    """Return readings that give a module different values; with a key, only those there."""
    exact = [each for each in fits if key is not None and each.reading.key == key]
    distinct: list[_Trial] = []
    for fit in exact or fits:
        if not any(_same(fit.values, other.values) for other in distinct):
            distinct.append(fit)
    return distinct


def _same(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    return first.keys() == second.keys() and all(
        _equal(value, second[name]) for name, value in first.items()
    )


def _equal(first: Any, second: Any) -> bool:
    if first is second:
        return True
    try:
        if isinstance(first, Tensor) and isinstance(second, Tensor):
            if first.shape != second.shape:
                return False
            return bool(((first == second) | ((first != first) & (second != second))).all())
        return bool(first == second)
    except Exception:  # quantized and sparse tensors compare as little as foreign values
        return False


def _notes(module: nn.Module, reading: Reading, content: Any) -> list[str]:
    """Return what the user should know of weights that fit."""
    notes = [] if reading.is_plain else [str(reading)]
    if beside := keys_beside(content, reading):
        notes.append(f"not read: {listed(beside)}")
    parameters = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    broken, converted = [], []
    for name, value in _expected(module, Path()).items():
        if not isinstance(value, Tensor) or not value.is_floating_point():
            continue
        # A buffer may be a mask of minus infinity; a parameter may not.
        finite = value.isfinite() if name in parameters else ~value.isnan()
        if not bool(finite.all()):
            broken.append(name)
        came = reading.state.get(name)
        if isinstance(came, Tensor) and not came.is_floating_point():
            converted.append(f"{name} ({str(came.dtype).removeprefix('torch.')})")
    if broken:
        notes.append(f"{_tensors(broken)} NaN or infinite values: {listed(broken, 3)}")
    if converted:
        notes.append(f"{_tensors(converted)} no floating-point numbers: {listed(converted, 3)}")
    return notes


def _field(key: str) -> str:
    """Return the line of a submission.yaml that chooses a key."""
    plain = re.fullmatch(r"[A-Za-z_][\w.-]*", key)
    return f"{KEY_FIELD}: {key if plain else json.dumps(key)}"


def _tensors(names: Sequence[str]) -> str:
    return "1 tensor holds" if len(names) == 1 else f"{len(names)} tensors hold"


def _no_tensors(path: Path, content: Any) -> str:
    held = next((node for _, node in mappings(content) if node), None)
    got = type(content).__name__ if held is None else f"one of {listed([str(k) for k in held])}"
    return (
        f"{path}: expected a mapping of names to tensors, got {got}; save module.state_dict() alone"
    )


def _misfit(
    path: Path, module: nn.Module, nearest: _Trial, expected: Mapping[str, Any], content: Any
) -> str:
    """Return the error that says why the nearest reading does not fit, and what to do."""
    shapes = {name: _shape(value) for name, value in expected.items()}
    if partial := partial_keys(content, shapes):
        shown = "; ".join(f"`{key}`, beside {listed(names, 3)}" for key, names in partial.items())
        return (
            f"{path}: no weights in it fit the architecture if all their names are read. If no "
            f"answer depends on the names beside, choose the key of those that fit: {shown}; "
            f"then write `{_field(next(iter(partial)))}` in submission.yaml"
        )
    reading = nearest.reading
    how = "" if reading.is_plain else f" ({reading}: the nearest of its readings)"
    text = f"{path}: the weights do not fit the architecture{how}: {nearest.problem}"
    names = [name for name in reading.state if name in expected]
    if expected and not names:
        return (
            f"{text}. The file and the architecture have no name in common: is it another "
            "architecture's?"
        )
    differ = [n for n in names if _shape(reading.state[n]) != _shape(expected[n])]
    classes = [n for n in differ if _shape(reading.state[n])[1:] == _shape(expected[n])[1:]]
    if differ and len(classes) == len(differ) <= 2:
        came, wanted = _shape(reading.state[classes[0]])[0], _shape(expected[classes[0]])[0]
        return f"{text}. Is the file of a network with {came} outputs there instead of {wanted}?"
    if differ and all(_size(reading.state[n]) == _size(expected[n]) for n in differ):
        return (
            f"{text}. As many values in another shape, as of a 1x1 convolution and a linear layer: "
            "build the layer that the file is of, or reshape its tensors"
        )
    parameters = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    absent = [name for name in expected if name not in reading.state]
    if absent and not differ and not parameters & set(absent) and len(names) == len(reading.state):
        return (
            f"{text}. Only buffers are missing: where the architecture makes them itself, register "
            "them with persistent=False"
        )
    return text


def _shape(value: Any) -> tuple[int, ...]:
    try:
        return tuple(value.shape) if isinstance(value, Tensor) else ()
    except RuntimeError:  # a lazy parameter has no shape yet
        return (-1,)


def _size(value: Any) -> int:
    return value.numel() if isinstance(value, Tensor) else 0


def _clone(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else copy.deepcopy(value)
