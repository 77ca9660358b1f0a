"""Read enumerations, paths, weak references and objects of other classes."""

from __future__ import annotations

import contextvars
import copyreg
import enum
import logging
import struct
import threading
import types
import weakref
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

import torch

from bench.candidates.object_digest.libraries import is_library
from bench.candidates.object_digest.walk import Readers, Undigestible, Walk
from bench.errors import FOREIGN_ERRORS

STATELESS = (
    type(threading.Lock()),
    type(threading.RLock()),
    threading.local,
    contextvars.ContextVar,
    logging.Logger,
    torch.utils.hooks.RemovableHandle,
)
"""Types whose contents decide no answer."""


def read_instance(walk: Walk, value: object, name: str) -> None:
    """Visit another object: its class, and its attributes or what it would be pickled as."""
    kind = type(value)
    walk.visit_class(kind, name)
    if _holds_c_state(kind) or (is_library(kind.__module__) and _says_its_state(kind)):
        _pickled(walk, value, name)
    else:
        walk.attributes(value, name)


def _pickled(walk: Walk, value: object, name: str) -> None:
    try:
        reducer = copyreg.dispatch_table.get(type(value))
        reduced = reducer(value) if reducer else value.__reduce_ex__(4)
    except FOREIGN_ERRORS as error:
        raise Undigestible("its contents cannot be read") from error
    if isinstance(reduced, str):
        walk.token("global", reduced)
        return
    function, arguments, *rest = reduced
    walk.visit(function, f"{name}.__reduce_ex__")
    walk.items("arguments", [each for each in arguments if each is not value], name)
    for part in rest:
        is_iterator = isinstance(part, Iterator)
        walk.visit(list(part) if is_iterator else part, name)


def _stateless(walk: Walk, value: object, name: str) -> None:
    walk.qualified_name("stateless", type(value))


def _enum(walk: Walk, value: enum.Enum, name: str) -> None:
    walk.token("enum", value.name)
    walk.visit_class(type(value), name)


def _path(walk: Walk, value: PurePath, name: str) -> None:
    walk.token("path", walk.text(str(value)))


def _reference(walk: Walk, value: weakref.ref[Any], name: str) -> None:
    walk.token("reference")
    walk.visit(value(), name)


def _holds_c_state(kind: type) -> bool:
    """Return whether objects of a class have contents besides their attributes and slots."""
    slots = sum(
        isinstance(member, types.MemberDescriptorType)
        for base in kind.__mro__
        if "__slots__" in vars(base)
        for member in vars(base).values()
    )
    pointers = slots + (kind.__dictoffset__ > 0) + (kind.__weakrefoffset__ > 0)
    return kind.__basicsize__ > object.__basicsize__ + pointers * struct.calcsize("P")


def _says_its_state(kind: type) -> bool:
    """Return whether a class defines what its objects are pickled as."""
    names = ("__reduce__", "__reduce_ex__", "__getstate__")
    return any(getattr(kind, each) is not getattr(object, each, None) for each in names)


READERS: Readers = (
    (STATELESS, _stateless),
    (enum.Enum, _enum),
    (PurePath, _path),
    (weakref.ref, _reference),
)
