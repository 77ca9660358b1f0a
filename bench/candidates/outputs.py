"""What a network returns, and which part of it is the logits.

Networks return a tensor, a tuple or list of heads, a mapping, or an object with `.logits`. The
logits are what is declared, or what is obvious: the key `logits`, or the only tensor with a row of
scores for each image. Anything else is refused with a list of what came.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor

from bench.errors import InputError

OutputKey = str | int
LOGITS = "logits"


def logits_of(answer: object, n: int, output: OutputKey | None = None) -> Tensor:
    """Return the logits (n, K) in what a network returned for n images.

    One logit z an image becomes two, [0, z]: their softmax is the sigmoid of z, for class 1.

    Args:
        output: a key, a position (from the end if negative), or keys joined by dots; None: what is
            obvious.

    Raises:
        InputError: nothing is there, or it is not obvious what is meant; what came is listed.
    """
    return cast(Tensor, _two_classes(_found(answer, n, output)[1], n))


def describe_logits(answer: object, n: int, output: OutputKey | None = None) -> tuple[str, ...]:
    """Return how logits are read from what a network returned, a line each; () for a plain tensor.

    Raises:
        InputError: as `logits_of`.
    """
    key, tensor = _found(answer, n, output)
    notes = []
    if isinstance(key, int):
        notes.append(f"logits read from output {key} of {len(parts_of(answer) or ())}")
    elif key is not None:
        notes.append(f"logits read from key `{key}`")
    if _is_one_logit(tensor, n):
        notes.append("one logit z becomes two, [0, z]: class 1 where z > 0")
    return tuple(notes)


def parts_of(answer: object) -> dict[OutputKey, Any] | None:
    """Return what a network returned by key or position; None if it is one tensor."""
    if isinstance(answer, Tensor):
        return None
    if isinstance(answer, Mapping):
        return {key if isinstance(key, int) else str(key): each for key, each in answer.items()}
    if isinstance(answer, list | tuple):
        names = getattr(answer, "_fields", None)
        return dict(zip(names or range(len(answer)), answer, strict=True))
    if dataclasses.is_dataclass(answer) and not isinstance(answer, type):
        return {field.name: getattr(answer, field.name) for field in dataclasses.fields(answer)}
    if isinstance(getattr(answer, LOGITS, None), Tensor):
        return {LOGITS: answer.logits}  # type: ignore[attr-defined]
    return {}


def _found(answer: object, n: int, output: OutputKey | None) -> tuple[OutputKey | None, Any]:
    parts = parts_of(answer)
    if parts is None:
        if output not in (None, LOGITS):
            raise InputError(
                f"expected an output {output!r} as declared, got {_shape(answer)}; leave `output` "
                "out"
            )
        return None, answer
    if output is not None:
        return output, _declared(answer, parts, output)
    if _is_scores(parts.get(LOGITS), n):
        return LOGITS, parts[LOGITS]
    rows = [key for key, value in parts.items() if _is_scores(value, n)]
    one = [key for key, value in parts.items() if _is_one_logit(value, n)]
    for found in (rows, one):
        if len(found) == 1:
            return found[0], parts[found[0]]
        if found:
            break
    came = f"expected logits ({n}, K), got {_listed(answer, parts)}"
    if not parts:
        raise InputError(f"{came}: there are no logits in it; return a tensor of torch")
    which = (rows or one or list(parts))[0]
    raise InputError(
        f"{came}: which output the logits are is not obvious; declare it: `output: {which}` in "
        f"submission.yaml, `output={which}` behind a name, or bench.wrap(model, output={which!r})"
    )


def _declared(answer: object, parts: dict[OutputKey, Any], output: OutputKey) -> Any:
    if output in parts:
        return parts[output]
    if isinstance(output, int):
        values = list(parts.values())
        if -len(values) <= output < len(values):
            return values[output]
    elif "." in output:  # a key within a key
        value: Any = answer
        for word in output.split("."):
            inner = parts_of(value)
            key = int(word) if word.lstrip("-").isdigit() else word
            value = _declared(value, inner if inner is not None else {}, key)
        return value
    raise InputError(
        f"expected an output {output!r} as declared, got {_listed(answer, parts)}; declare one of "
        "these by `output`"
    )


def _two_classes(tensor: Any, n: int) -> Any:
    """Return logits; one logit an image becomes two."""
    if not isinstance(tensor, Tensor) or not _is_one_logit(tensor, n):
        return tensor
    column = tensor.reshape(n, 1)
    return torch.cat([torch.zeros_like(column), column], dim=1)


def _is_scores(value: object, n: int) -> bool:
    """Return whether a value has a row of scores of two or more classes for each image."""
    return (
        isinstance(value, Tensor)
        and value.is_floating_point()
        and value.ndim == 2
        and len(value) == n
        and value.shape[1] > 1
    )


def _is_one_logit(value: object, n: int) -> bool:
    """Return whether a value is one number for each image."""
    return (
        isinstance(value, Tensor)
        and value.is_floating_point()
        and tuple(value.shape) in ((n, 1), (n,), *(((),) if n == 1 else ()))
    )


def _listed(answer: object, parts: dict[OutputKey, Any], limit: int = 8) -> str:
    shown = [f"{key}: {_shape(value)}" for key, value in list(parts.items())[:limit]]
    more = f", and {len(parts) - limit} more" if len(parts) > limit else ""
    return f"{type(answer).__name__} with {', '.join(shown)}{more}" if shown else _shape(answer)


def _shape(value: object) -> str:
    if isinstance(value, Tensor):
        kind = str(value.dtype).removeprefix("torch.")
        return f"{kind} tensor {tuple(value.shape)}"
    return type(value).__name__
