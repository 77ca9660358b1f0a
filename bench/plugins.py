"""Packages that add to the program: their modules are imported when a command starts.

A package that brings a data set, an attack, a recipe, a flag, a source of candidates or a kind of
run names the module that registers it as an entry point of the group `bench.plugins`:

    [project.entry-points."bench.plugins"]
    my-attacks = "my_package.attacks"

Programs that use the library import such modules themselves.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points

from bench.errors import BenchError, InputError

ENTRY_POINT_GROUP = "bench.plugins"


@cache
def load_plugins() -> None:
    """Import what installed packages offer, once.

    Raises:
        InputError: a module cannot be imported, or what it registers is refused.
    """
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        try:
            entry.load()
        except BenchError as error:
            raise InputError(f"plugin {entry.name} ({entry.value}): {error}") from error
        except Exception as error:  # foreign code may raise anything
            raise InputError(
                f"plugin {entry.name}: {entry.value} cannot be imported: {type(error).__name__}: "
                f"{error}; repair it or uninstall its package"
            ) from error
