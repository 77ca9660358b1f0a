"""The state of a search: tensors with one row a work item, and what is done with such rows.

A state is a set of buffers. A step changes them in place, so that their addresses stay the same
(which CUDA graphs need) and no memory is allocated for them. Rows of several states, whatever their
iteration, may be put into one: `select` takes rows out, `insert` puts them in.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

S = TypeVar("S", bound="State")


@dataclass(frozen=True)
class State:
    """What every attack keeps of each work item. Fields never share memory.

    Attributes:
        labels: (N,) int64, the right classes.
        targets: (N,) int64, the classes to reach; unused by untargeted attacks.
        best: (N, ...) the best so far in the attack's own sense; `Attack.images` says which image
            broke an item.
        broken: (N,) bool, whether an image inside the ball was classified wrongly.
        iteration: (N,) int64, steps done. A finished item's stands still.
    """

    labels: Tensor
    targets: Tensor
    best: Tensor
    broken: Tensor
    iteration: Tensor


def select(state: S, rows: Tensor | slice) -> S:
    """Return rows of a state as a state: copies for a tensor of rows, views for a slice.

    Args:
        state: N items.
        rows: (M,) int64 or (N,) bool, or a slice.
    """
    selected: S = _combine([state], lambda tensors: tensors[0][rows])
    return selected


def insert(state: S, rows: Tensor, other: S) -> None:
    """Put the items of `other` in place of some of `state`'s, in place.

    Args:
        state: N items.
        rows: (M,) int64, different from each other.
        other: M items.
    """

    def put(tensors: Sequence[Tensor]) -> Tensor:
        return tensors[0].index_copy_(0, rows, tensors[1])

    _combine([state, other], put)


def overwrite(state: S, other: S) -> None:
    """Put all items of `other` in place of all of `state`'s, in place."""
    into, source = list(tensors_of(state)), list(tensors_of(other))
    for dtype in {each.dtype for each in into}:
        ours = [place for place, each in enumerate(into) if each.dtype == dtype]
        # One launch for tensors of one type.
        torch._foreach_copy_([into[place] for place in ours], [source[place] for place in ours])


def concatenate(states: Sequence[S]) -> S:
    """Return the items of all states, in their order, in one new state."""
    joined: S = _combine(states, lambda tensors: torch.cat(list(tensors)))
    return joined


def reopen(state: State, rows: Tensor) -> None:
    """Let items go on whose success was not confirmed, in place.

    A step changes nothing of a broken item, so that nothing of the search is lost.

    Args:
        state: N items.
        rows: (M,) int64.
    """
    state.broken[rows] = False


def tensors_of(container: Any) -> Iterator[Tensor]:
    """Yield the tensors in a tensor, a dataclass or a tuple, which may be nested."""
    if isinstance(container, Tensor):
        yield container
    elif isinstance(container, tuple | list):
        for each in container:
            yield from tensors_of(each)
    elif dataclasses.is_dataclass(container):
        for field in dataclasses.fields(container):
            yield from tensors_of(getattr(container, field.name))


def _combine(containers: Sequence[Any], function: Callable[[Sequence[Tensor]], Tensor]) -> Any:
    """Apply a function to the corresponding tensors of dataclasses, which may be nested."""
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(containers[0]):
        values = [getattr(container, field.name) for container in containers]
        if isinstance(values[0], Tensor):
            changes[field.name] = function(values)
        else:
            changes[field.name] = _combine(values, function)
    return dataclasses.replace(containers[0], **changes)
