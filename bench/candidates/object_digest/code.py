"""Read functions, methods, classes and Python modules."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import types
from pathlib import Path
from typing import Any

from bench.candidates.object_digest.libraries import is_library
from bench.candidates.object_digest.source import names_in, source_of
from bench.candidates.object_digest.walk import Readers, Walk
from bench.errors import is_in_library

CLASS_BODY = frozenset(
    {"__dict__", "__weakref__", "__doc__", "__module__", "__qualname__", "__annotations__"}
    | {"__abstractmethods__", "_abc_impl", "__firstlineno__", "__static_attributes__"}
    | {"_backward_cls", "__parameters__", "__orig_bases__", "__annotate__", "__annotate_func__"}
)
"""What Python and PyTorch add to a class without changing what it does."""


def is_annotation(value: object) -> bool:
    """Return whether an object is a type annotation, such as `list[int]`."""
    return type(value).__module__ == "typing" or isinstance(value, types.GenericAlias)


def read_annotation(walk: Walk, value: object, name: str) -> None:
    """Take in a type annotation."""
    walk.token("typing", walk.text(repr(value)))


def is_named_callable(value: object) -> bool:
    """Return whether an object can be called and has a name, as functions in C do."""
    return callable(value) and isinstance(getattr(value, "__qualname__", None), str)


def read_callable(walk: Walk, value: Any, name: str) -> None:
    """Visit a function in C, a wrapped one or a descriptor: its name and its object."""
    walk.qualified_name("callable", value)
    bound = getattr(value, "__self__", None)
    if bound is not None and not isinstance(bound, types.ModuleType):
        walk.visit(bound, f"{name}.__self__")
    if hasattr(value, "__wrapped__"):
        walk.visit(value.__wrapped__, name)


def _function(walk: Walk, value: types.FunctionType, name: str) -> None:
    walk.qualified_name("function", value)
    if hasattr(value, "_torchdynamo_orig_callable"):  # of torch.compile
        walk.visit(value._torchdynamo_orig_callable, name)
        return
    closure = zip(value.__code__.co_freevars, value.__closure__ or (), strict=False)
    for variable, cell in closure:
        with contextlib.suppress(ValueError):  # an empty cell
            walk.visit(cell.cell_contents, f"{name}.{variable}")
    walk.attributes(value, name)
    if not (is_library(value.__module__) or is_in_library(value.__code__.co_filename)):
        _source(walk, value, name)
        _globals(walk, value)


def _source(walk: Walk, value: types.FunctionType, name: str) -> None:
    text = source_of(value.__code__)
    if text is None:
        walk.visit(value.__code__, f"{name}.__code__")
    else:
        walk.token("source", walk.text(text))
    walk.visit(value.__defaults__, f"{name}.__defaults__")
    walk.visit(value.__kwdefaults__, f"{name}.__kwdefaults__")


def _globals(walk: Walk, value: types.FunctionType) -> None:
    """Visit the global values that a function refers to, those of other modules too."""
    used, names = names_in(value.__code__)
    for each in sorted(used & value.__globals__.keys()):
        found = value.__globals__[each]
        walk.token("global", each)
        walk.visit(found, each)
        if isinstance(found, types.ModuleType) and not is_library(found.__name__):
            walk.visit({key: vars(found)[key] for key in sorted(names & vars(found).keys())}, each)


def _method(walk: Walk, value: types.MethodType, name: str) -> None:
    walk.token("method")
    walk.visit(value.__func__, name)
    walk.visit(value.__self__, f"{name}.__self__")


def _partial(walk: Walk, value: functools.partial[Any], name: str) -> None:
    walk.token("partial")
    walk.visit(value.func, f"{name}.func")
    walk.visit(value.args, f"{name}.args")
    walk.visit(value.keywords, f"{name}.keywords")
    walk.beyond(value, (functools.partial,), name)


def _byte_code(walk: Walk, value: types.CodeType, name: str) -> None:
    walk.token("code", value.co_code)
    walk.visit(value.co_names, name)
    walk.visit(value.co_consts, name)


def _class(walk: Walk, value: type, name: str) -> None:
    """Visit a class by its name; one of the user's own by its body and its bases too."""
    walk.qualified_name("class", value)
    if not is_library(value.__module__):
        for key, item in sorted(vars(value).items()):
            if key not in CLASS_BODY and not _is_written_by_dataclass(value, item):
                walk.token("attribute", key)
                walk.visit(item, f"{value.__qualname__}.{key}")
    for base in value.__bases__:
        if not is_library(base.__module__):
            walk.visit_class(base, name)


def _module(walk: Walk, value: types.ModuleType, name: str) -> None:
    walk.token("python module", walk.text(value.__name__))
    file = getattr(value, "__file__", None)
    if not is_library(value.__name__) and file is not None:
        walk.token("file", Path(file).read_bytes())


def _property(walk: Walk, value: property, name: str) -> None:
    walk.items("property", (value.fget, value.fset, value.fdel), name)


def _wrapper(walk: Walk, value: Any, name: str) -> None:
    walk.token(type(value).__name__)
    walk.visit(value.__func__, name)


def _is_written_by_dataclass(owner: type, item: object) -> bool:
    """Return whether a method follows from the fields of a dataclass, without source."""
    if not dataclasses.is_dataclass(owner) or not isinstance(item, types.FunctionType):
        return False
    return item.__code__.co_filename.startswith("<")


READERS: Readers = (
    (types.FunctionType, _function),
    (types.MethodType, _method),
    (functools.partial, _partial),
    (types.CodeType, _byte_code),
    (type, _class),
    (types.ModuleType, _module),
    (property, _property),
    ((staticmethod, classmethod), _wrapper),
)
