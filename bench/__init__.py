"""Benchmark harness for the accuracy-robustness trade-off of image classifiers.

Importing this package makes `robustbench` importable (see `bench.robustbench`).
"""

import importlib
from types import ModuleType

from bench.import_hook import make_importable

__version__ = "0.1.0"

make_importable()


def __getattr__(name: str) -> ModuleType:
    """Import `bench.robustbench` when it is first asked for."""
    if name == "robustbench":
        return importlib.import_module("bench.robustbench")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
