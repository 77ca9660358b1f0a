"""Engines: what runs attacks over many samples."""

from __future__ import annotations

import torch

from bench.engines.acceleration import default_precision
from bench.engines.engine import AttackTask, CertificationTask, Engine, Task, Trials
from bench.engines.fast import FastEngine
from bench.engines.reference import ReferenceEngine
from bench.errors import InputError

ENGINES = ("fast", "reference")
DEFAULT_ENGINE = "fast"


def make_engine(
    name: str, precision: str | None = None, device: torch.device | None = None
) -> Engine[AttackTask]:
    """Return the engine called `name`.

    Args:
        precision: of its search: float32, tf32 or bfloat16; the reference knows float32 only. None:
            float32 for the reference, `default_precision` for the fast engine.
        device: that it will run on; the CPU by default.

    Raises:
        InputError: there is no such engine, or it has no such precision.
    """
    if name == "fast":
        return FastEngine(precision or default_precision(device or torch.device("cpu")))
    if name != "reference":
        raise InputError(f"expected an engine of {', '.join(ENGINES)}; got {name!r}")
    if precision not in (None, "float32"):
        raise InputError(f"the reference engine runs in float32; got precision {precision!r}")
    return ReferenceEngine()


__all__ = [
    "DEFAULT_ENGINE",
    "ENGINES",
    "AttackTask",
    "CertificationTask",
    "Engine",
    "Task",
    "Trials",
    "make_engine",
]
