"""Weights files in many formats and wrappings, whole and damaged."""

from __future__ import annotations

import hashlib
import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from tests.fuzz.case import Outcome

State = dict[str, Tensor]


@dataclass(frozen=True)
class _Format:
    """How a state becomes a file.

    Attributes:
        content: of the file.
        suffix: of its name.
        outcome: of loading it.
        fields: that replace the submission's own.
    """

    content: Callable[[State], bytes]
    suffix: str = ".pt"
    outcome: Outcome = "accept"
    fields: Mapping[str, Any] = field(default_factory=dict)


def _torch(value: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def _prefixed(prefix: str) -> Callable[[State], State]:
    return lambda state: {f"{prefix}{key}": value for key, value in state.items()}


def _other(state: State) -> State:
    """The same names with other numbers."""
    return {key: value + 1 if value.is_floating_point() else value for key, value in state.items()}


def _with_one(change: Callable[[Tensor], Tensor]) -> Callable[[State], State]:
    """The state with its first tensor of floating point changed."""

    def changed(state: State) -> State:
        key = next(key for key, value in state.items() if value.is_floating_point())
        return {**state, key: change(state[key])}

    return changed


def _mapped(change: Callable[[State], Any]) -> Callable[[State], bytes]:
    return lambda state: _torch(change(state))


def _safe(state: State) -> bytes:
    return save({key: value.contiguous().clone() for key, value in state.items()})


class _Code:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("code from a weights file ran",)


def _pickled_code(state: State) -> bytes:
    return _torch({"state_dict": state, "more": _Code()})


FORMATS: Mapping[str, _Format] = MappingProxyType(
    {
        "safetensors": _Format(_safe, ".safetensors"),
        "pt": _Format(_mapped(dict)),
        "pth": _Format(_mapped(dict), ".pth"),
        "pth.tar": _Format(_mapped(dict), ".pth.tar"),
        "ckpt": _Format(_mapped(dict), ".ckpt"),
        "bin": _Format(_mapped(dict), ".bin"),
        "no ending": _Format(_mapped(dict), "", "either"),
        "safetensors called pt": _Format(_safe, ".pt", "either"),
        "pt called safetensors": _Format(_mapped(dict), ".safetensors", "either"),
        "legacy": _Format(lambda state: _torch(state, _use_new_zipfile_serialization=False)),
        "legacy pth.tar in state_dict": _Format(
            lambda state: _torch(
                {"epoch": 3, "arch": "net", "state_dict": state, "best_acc": 0.5},
                _use_new_zipfile_serialization=False,
            ),
            ".pth.tar",
        ),
        "ordered": _Format(_mapped(OrderedDict)),
        "parameters": _Format(
            _mapped(
                lambda state: {
                    k: nn.Parameter(v) if v.is_floating_point() else v for k, v in state.items()
                }
            )
        ),
        "state_dict": _Format(_mapped(lambda state: {"state_dict": state})),
        "state_dict and optimizer": _Format(
            _mapped(
                lambda state: {
                    "state_dict": state,
                    "optimizer": {"state": {}, "param_groups": [{"lr": 0.1, "params": [0, 1]}]},
                    "epoch": 7,
                    "args": {"lr": 0.1},
                }
            )
        ),
        "model": _Format(_mapped(lambda state: {"model": state, "epoch": 7})),
        "net": _Format(_mapped(lambda state: {"net": state, "acc": 91.0, "epoch": 7})),
        "model_state_dict": _Format(_mapped(lambda state: {"model_state_dict": state})),
        "DataParallel": _Format(_mapped(_prefixed("module."))),
        "DataParallel, safetensors": _Format(
            lambda state: _safe(_prefixed("module.")(state)), ".safetensors"
        ),
        "compiled": _Format(_mapped(_prefixed("_orig_mod."))),
        "compiled in DataParallel": _Format(_mapped(_prefixed("module._orig_mod."))),
        "DataParallel in state_dict": _Format(
            _mapped(lambda state: {"state_dict": _prefixed("module.")(state), "epoch": 1})
        ),
        "Lightning": _Format(
            _mapped(lambda state: {"state_dict": _prefixed("model.")(state), "epoch": 1})
        ),
        "averaged": _Format(
            _mapped(lambda state: {"n_averaged": torch.tensor(3), **_prefixed("module.")(state)})
        ),
        "ema alone": _Format(_mapped(lambda state: {"ema": state})),
        "ema beside other weights": _Format(
            _mapped(lambda state: {"state_dict": _other(state), "ema": state}), outcome="refuse"
        ),
        "two models": _Format(
            _mapped(lambda state: {"generator": _other(state), "net": state}), outcome="refuse"
        ),
        "two equal models": _Format(
            _mapped(lambda state: {"model": state, "net": state}), outcome="either"
        ),
        "bfloat16 weights": _Format(
            _mapped(
                lambda state: {
                    k: v.bfloat16() if v.is_floating_point() else v for k, v in state.items()
                }
            ),
            outcome="either",
        ),
        "whole module": _Format(
            lambda state: _torch(nn.Sequential(nn.Flatten(), nn.Linear(4, 2))), outcome="refuse"
        ),
        "code": _Format(_pickled_code, outcome="refuse"),
        "plain pickle": _Format(
            lambda state: pickle.dumps({k: v.tolist() for k, v in state.items()}), outcome="refuse"
        ),
        "list": _Format(_mapped(lambda state: list(state.values())), outcome="refuse"),
        "a tensor": _Format(_mapped(lambda state: torch.zeros(3)), outcome="refuse"),
        "numbers": _Format(_mapped(lambda state: dict.fromkeys(state, 1.0)), outcome="refuse"),
        "whole-number names": _Format(
            _mapped(lambda state: dict(enumerate(state.values()))), outcome="refuse"
        ),
        "empty mapping": _Format(_mapped(lambda state: {}), outcome="refuse"),
        "missing one": _Format(
            _mapped(lambda state: dict(list(state.items())[1:])), outcome="refuse"
        ),
        "one too many": _Format(
            _mapped(lambda state: {**state, "extra.weight": torch.zeros(2)}), outcome="refuse"
        ),
        "another shape": _Format(
            _mapped(_with_one(lambda value: value[None].repeat(2, *[1] * value.dim()))),
            outcome="refuse",
        ),
        "transposed": _Format(
            _mapped(_with_one(lambda value: value.flatten()[:-1].clone())), outcome="refuse"
        ),
        "not a number": _Format(
            _mapped(_with_one(lambda value: torch.full_like(value, torch.nan))), outcome="either"
        ),
        "sparse": _Format(_mapped(_with_one(lambda value: value.to_sparse())), outcome="either"),
        "complex": _Format(
            _mapped(_with_one(lambda value: value.to(torch.complex64))), outcome="either"
        ),
        "on meta": _Format(_mapped(_with_one(lambda value: value.to("meta"))), outcome="refuse"),
        "truncated": _Format(lambda state: _torch(state)[:-100], outcome="refuse"),
        "truncated safetensors": _Format(
            lambda state: _safe(state)[:-5], ".safetensors", outcome="refuse"
        ),
        "flipped bytes": _Format(
            lambda state: bytes(255 - byte for byte in _torch(state)[:200]) + _torch(state)[200:],
            outcome="refuse",
        ),
        "empty file": _Format(lambda state: b"", outcome="refuse"),
        "text": _Format(
            lambda state: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
            outcome="refuse",
        ),
        "web page": _Format(lambda state: b"<!DOCTYPE html><html>404</html>", ".pth", "refuse"),
        "other zip": _Format(lambda state: _other_zip(), outcome="refuse"),
        "random bytes": _Format(lambda state: bytes(range(256)) * 8, outcome="refuse"),
        "wrong digest": _Format(_mapped(dict), outcome="refuse", fields={"sha256": 64 * "0"}),
        "no digest": _Format(_mapped(dict), outcome="refuse", fields={"sha256": None}),
        "short digest": _Format(_mapped(dict), outcome="refuse", fields={"sha256": "abc"}),
        "no such file": _Format(_mapped(dict), outcome="refuse", fields={"weights": "none.pt"}),
        "a folder": _Format(_mapped(dict), outcome="refuse", fields={"weights": "."}),
        "outside": _Format(_mapped(dict), outcome="refuse", fields={"weights": "../w.pt"}),
        "absolute": _Format(_mapped(dict), outcome="refuse", fields={"weights": "/etc/hostname"}),
        "another scheme": _Format(
            _mapped(dict), outcome="refuse", fields={"weights": "s3://b/w.pt"}
        ),
        "no package": _Format(
            _mapped(dict), outcome="refuse", fields={"weights": "package://nothing_here/w.pt"}
        ),
        "package without a name": _Format(
            _mapped(dict), outcome="refuse", fields={"weights": "package:///w.pt"}
        ),
    }
)


def _other_zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("readme.txt", "nothing")
    return buffer.getvalue()


@dataclass(frozen=True)
class WeightsFile:
    """Weights as they were written.

    Attributes:
        fields: of submission.yaml.
        outcome: of loading them.
        names: texts of which a refusal contains one.
    """

    fields: dict[str, Any]
    outcome: Outcome
    names: tuple[str, ...]


def write_weights(folder: Path, name: str, state: State | None) -> WeightsFile:
    """Write weights into a submission's folder; without a state there is nothing to write."""
    if state is None:
        return WeightsFile({}, "accept", ())
    kind = FORMATS[name]
    path = folder / f"weights{kind.suffix}"
    path.write_bytes(kind.content(state))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    fields: dict[str, Any] = {"weights": path.name, "sha256": digest, **kind.fields}
    given = {key: value for key, value in fields.items() if value is not None}
    return WeightsFile(given, kind.outcome, (path.name, "submission.yaml"))


def read_back(folder: Path, state: State | None) -> State | None:
    """The state that a file holds, with the types of another state; None if it cannot be read."""
    (path,) = folder.glob("weights*")
    try:
        read: State = torch.load(path, weights_only=True)
        return {key: value.to(state[key].dtype) for key, value in read.items()} if state else None
    except Exception:
        return None


def as_of_old(state: State) -> State:
    """A state as older versions of torch wrote it: no counters, weight norm's old names."""
    names = {
        ".parametrizations.weight.original0": ".weight_g",
        ".parametrizations.weight.original1": ".weight_v",
    }
    old: State = {}
    for key, value in state.items():
        if key.endswith("num_batches_tracked"):
            continue
        for new, before in names.items():
            key = key.replace(new, before)
        old[key] = value
    return old
