"""Packages that add to the program: their modules are imported when a command starts.

A package that brings a data set, an attack, a recipe, a flag, a source of candidates or a kind of
run names the module that registers it as an entry point of the group `bench.plugins`:

    [project.entry-points."bench.plugins"]
    my-attacks = "my_package.attacks"

A file of code that is no package is named by `bench --plugin FILE`, or by the environment variable
`BENCH_PLUGINS`, which this process hands on to the workers that it starts.

Programs that use the library import such modules themselves.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Iterable
from functools import cache, partial
from importlib.metadata import entry_points
from pathlib import Path

from bench.errors import FOREIGN_ERRORS, BenchError, InputError, raised

ENTRY_POINT_GROUP = "bench.plugins"
VARIABLE = "BENCH_PLUGINS"
"""Files to import, separated as in PATH."""


@cache
def load_plugins() -> None:
    """Import what installed packages offer, and the files that the user named, once.

    Raises:
        InputError: a module cannot be imported, or what it registers is refused.
    """
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        advice = "repair it or uninstall its package"
        _import(f"{entry.name} ({entry.value})", entry.load, advice)
    for name in filter(None, os.environ.get(VARIABLE, "").split(os.pathsep)):
        _import(name, partial(_load_file, Path(name)), "repair it")


def add_plugins(files: Iterable[Path]) -> None:
    """Name files whose code this process and the workers that it starts import."""
    before = filter(None, os.environ.get(VARIABLE, "").split(os.pathsep))
    names = dict.fromkeys([*before, *(str(each.resolve()) for each in files)])
    if names:
        os.environ[VARIABLE] = os.pathsep.join(names)


def _import(name: str, load: Callable[[], object], advice: str) -> None:
    try:
        load()
    except BenchError as error:
        raise InputError(f"plugin {name}: {error}") from error
    except FOREIGN_ERRORS as error:
        raise InputError(f"plugin {name}: cannot be imported: {raised(error)}; {advice}") from error


def _load_file(path: Path) -> None:
    """Import a file under its own name, so that workers find what it defines by that name.

    Raises:
        InputError: there is no such file, or another module has its name.
    """
    if not path.is_file() or path.suffix != ".py":
        raise InputError("expected a Python file")
    known = sys.modules.get(path.stem)
    if known is not None:
        if getattr(known, "__file__", None) == str(path):
            return
        raise InputError(f"expected a name that no other module has; rename {path.name}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[path.stem]
        raise
