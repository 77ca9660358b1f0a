"""Tell code of installed packages, which is known by its name, from a user's own."""

from __future__ import annotations

import functools
import sys

from bench.errors import is_in_library

LIBRARIES = frozenset({"bench", "torch", "numpy", *sys.stdlib_module_names})


def is_library(module: object) -> bool:
    """Return whether a Python module is of an installed package, Python or this program."""
    return isinstance(module, str) and _is_installed(module)


@functools.cache
def _is_installed(module: str) -> bool:
    top = module.partition(".")[0]
    if top in LIBRARIES:
        return True
    found = sys.modules.get(module) or sys.modules.get(top)
    file = getattr(found, "__file__", None)
    return file is not None and is_in_library(str(file))
