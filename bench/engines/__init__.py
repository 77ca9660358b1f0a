"""Engines: what runs attacks over many samples."""

from __future__ import annotations

from bench.engines.engine import Engine, Task
from bench.engines.fast import FastEngine
from bench.engines.reference import ReferenceEngine
from bench.errors import InputError

ENGINES: dict[str, type[Engine]] = {"reference": ReferenceEngine, "fast": FastEngine}
DEFAULT_ENGINE = "reference"


def make_engine(name: str) -> Engine:
    """The engine called `name`.

    Raises:
        InputError: there is none.
    """
    if name not in ENGINES:
        raise InputError(f"expected an engine of {', '.join(ENGINES)}; got {name!r}")
    return ENGINES[name]()


__all__ = ["DEFAULT_ENGINE", "ENGINES", "Engine", "Task", "make_engine"]
