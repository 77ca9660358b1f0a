"""Networks that a user's Python function builds: `python:package.module:function`."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from bench.candidates.named.made import Made, SourceReference
from bench.candidates.named.options import Options, read_options
from bench.candidates.sources import CandidateSource, Search
from bench.candidates.weights import load_weights
from bench.errors import FOREIGN_ERRORS, InputError, raised
from bench.suggestion import did_you_mean

PREFIX = "python:"
SYNTAX = "package.module:function"
_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


class FunctionSource(CandidateSource):
    """Calls functions of installed modules, and of files in the current folder."""

    title = "Python function"
    prefix = PREFIX

    def takes_options(self, name: str) -> bool:
        """Return that it may."""
        return True

    def find(self, name: str, search: Search) -> list[SourceReference]:
        """Return the function's candidate; nothing is imported yet.

        Raises:
            InputError: another form of name.
        """
        function, options = read_options(name)
        function = function.removeprefix(PREFIX)
        check_function(function, name)
        return [SourceReference(name, options, search, partial(_make, name, function, options))]


def check_function(function: str, name: str) -> None:
    """Refuse what does not have the form package.module:function.

    Raises:
        InputError: it does not; `name` begins the message.
    """
    if not _FUNCTION.fullmatch(function):
        raise InputError(
            f"{name}: expected {SYNTAX}, such as models.resnet:build; got {function!r}"
        )


def call(function: str, name: str) -> nn.Module:
    """Import a function and call it without arguments.

    Modules are looked for in the current folder first, as `python -m` does.

    Returns:
        the module that it returns, or that the name itself means.

    Raises:
        InputError: it cannot be imported, raises an error, or returns something else.
    """
    location, _, path = function.partition(":")
    with _current_folder_first():
        try:
            found: Any = importlib.import_module(location)
            for part in path.split("."):
                found = getattr(found, part)
            made = found if isinstance(found, nn.Module) or not callable(found) else found()
        except FOREIGN_ERRORS as error:
            said = _advice(error, location, path) or raised(error)
            raise InputError(f"{name}: {function}: {said}") from error
    if not isinstance(made, nn.Module):
        raise InputError(
            f"{name}: expected {function} to return an nn.Module, got {type(made).__name__}"
        )
    return made


def _advice(error: BaseException, location: str, path: str) -> str:
    """Return what is wrong with the name of a function; empty: it is something else."""
    if isinstance(error, ModuleNotFoundError) and (error.name or "") in _parents(location):
        if location.endswith(".py"):
            return f"expected a module, not its file: {location.removesuffix('.py')}:{path}"
        return f"there is no module {error.name}, neither in {Path.cwd()} nor installed"
    module = sys.modules.get(location)
    if isinstance(error, AttributeError) and module is not None and error.obj is module:
        names = [name for name in vars(module) if not name.startswith("_")]
        hint = did_you_mean(path, names, most=1)
        return f"{location} has no {path.partition('.')[0]}" + (f"; {hint}" if hint else "")
    return ""


def _parents(location: str) -> set[str]:
    """Return a module's name and those of the packages that it is in."""
    parts = location.split(".")
    return {".".join(parts[:end]) for end in range(1, len(parts) + 1)}


@contextmanager
def _current_folder_first() -> Iterator[None]:
    """Let imports find the current folder's modules first; afterwards they are found last.

    What a network imports during its passes must still be found.
    """
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(folder)
        if folder not in sys.path:
            sys.path.append(folder)


def _make(name: str, function: str, options: Options) -> Made:
    module = call(function, name)
    notes: list[str] = []
    if options.checkpoint is not None:
        notes = load_weights(module, options.checkpoint, options.key)
    return Made(module, function, notes=tuple(notes))
