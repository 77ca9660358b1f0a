"""Read lists, mappings, sets, and numbers and texts of classes of their own."""

from __future__ import annotations

import types
from typing import Any

from bench.candidates.object_digest.walk import Readers, Walk

PLAIN = (int, float, complex, str, bytes)


def _sequence(walk: Walk, value: list[Any] | tuple[Any, ...], name: str) -> None:
    walk.items("sequence", value, name)
    walk.beyond(value, (list, tuple), name)


def _mapping(walk: Walk, value: dict[Any, Any], name: str) -> None:
    items = list(dict.items(value))  # their order counts: networks are applied in it
    walk.token("mapping", str(len(items)))
    for key, item in items:
        walk.visit(key, f"{name}[...]")
        walk.visit(item, f"{name}[{key!r}]" if isinstance(key, str | int) else f"{name}[...]")
    walk.beyond(value, (dict,), name)


def _mapping_proxy(walk: Walk, value: types.MappingProxyType[Any, Any], name: str) -> None:
    _mapping(walk, dict(value), name)


def _set(walk: Walk, value: set[Any] | frozenset[Any], name: str) -> None:
    """Visit a set in the order of digests: its own order differs between processes."""
    elements = []
    for element in value:
        branch = walk.branch()
        branch.visit(element, f"{name}{{...}}")
        walk.undigested |= branch.undigested
        elements.append(branch.hexdigest())
    walk.token("set", " ".join(sorted(elements)))
    walk.beyond(value, (set, frozenset), name)


def _subclassed(walk: Walk, value: Any, name: str) -> None:
    """Visit a number or a text of a class of its own."""
    base = next(each for each in PLAIN if isinstance(value, each))
    walk.visit(base(value), name)
    walk.beyond(value, (base,), name)


READERS: Readers = (
    ((list, tuple), _sequence),
    (dict, _mapping),
    ((set, frozenset), _set),
    (types.MappingProxyType, _mapping_proxy),
    (PLAIN, _subclassed),
)
