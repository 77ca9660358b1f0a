"""Engines: what runs attacks over many samples."""

from __future__ import annotations

from bench.engines.engine import Engine, Task
from bench.engines.fast import FastEngine
from bench.engines.reference import ReferenceEngine
from bench.errors import InputError

ENGINES = ("reference", "fast")
DEFAULT_ENGINE = "reference"


def make_engine(name: str, precision: str = "float32") -> Engine:
    """The engine called `name`.

    Args:
        precision: of its search: float32, tf32 or bfloat16; the reference knows float32 only.

    Raises:
        InputError: there is no such engine, or it has no such precision.
    """
    if name == "fast":
        return FastEngine(precision)
    if name != "reference":
        raise InputError(f"expected an engine of {', '.join(ENGINES)}; got {name!r}")
    if precision != "float32":
        raise InputError(f"the reference engine runs in float32; got precision {precision!r}")
    return ReferenceEngine()


__all__ = ["DEFAULT_ENGINE", "ENGINES", "Engine", "Task", "make_engine"]
