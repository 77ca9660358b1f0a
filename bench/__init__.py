"""Benchmark harness for the accuracy-robustness trade-off of image classifiers.

The Python interface: `bench.evaluate(model, "cifar10-linf")` and what stands beside it. A name is
imported when it is first used, so that `import bench` is fast and needs no torch. It also makes
`robustbench` importable (see `bench.robustbench`).
"""

from __future__ import annotations

import importlib
import warnings
from typing import TYPE_CHECKING, Any

from bench.import_hook import make_importable

if TYPE_CHECKING:
    from bench import attacks as attacks
    from bench import autoattack as autoattack
    from bench import data as data
    from bench import errors as errors
    from bench import robustbench as robustbench
    from bench.api.evaluation import Evaluation as Evaluation
    from bench.api.running import certify as certify
    from bench.api.running import evaluate as evaluate
    from bench.api.stored import check as check
    from bench.api.stored import load as load
    from bench.api.stored import report as report
    from bench.api.stored import results as results
    from bench.api.sweeping import sweep as sweep
    from bench.auditing.run import audit as audit
    from bench.candidates.wrapped import wrap as wrap
    from bench.monitor.monitor import RobustnessMonitor as RobustnessMonitor
    from bench.suites.suite import L2 as L2
    from bench.suites.suite import Linf as Linf
    from bench.suites.suite import Suite as Suite
    from bench.suites.suite import ThreatModel as ThreatModel
    from bench.suites.suite import load_suite as load_suite

__version__ = "0.1.0"

_PLACES = {
    "Evaluation": "bench.api.evaluation",
    "L2": "bench.suites.suite",
    "Linf": "bench.suites.suite",
    "RobustnessMonitor": "bench.monitor.monitor",
    "Suite": "bench.suites.suite",
    "ThreatModel": "bench.suites.suite",
    "audit": "bench.auditing.run",
    "certify": "bench.api.running",
    "check": "bench.api.stored",
    "evaluate": "bench.api.running",
    "load": "bench.api.stored",
    "load_suite": "bench.suites.suite",
    "report": "bench.api.stored",
    "results": "bench.api.stored",
    "sweep": "bench.api.sweeping",
    "wrap": "bench.candidates.wrapped",
}
"""The modules from which names are imported when they are first used."""

_MODULES = ("attacks", "autoattack", "data", "errors", "robustbench")
"""Modules of the interface, imported like the names."""

__all__ = ["__version__", *_PLACES, *_MODULES]

make_importable()


def __getattr__(name: str) -> Any:
    """Import what is asked for; later uses find it here."""
    if name in _MODULES:
        return importlib.import_module(f"bench.{name}")
    if name not in _PLACES:
        raise AttributeError(f"module 'bench' has no attribute {name!r}")
    with warnings.catch_warnings():
        # PyTorch warns of what other libraries do while they are imported.
        warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.")
        value = globals()[name] = getattr(importlib.import_module(_PLACES[name]), name)
    return value


def __dir__() -> list[str]:
    """Return the names of the interface, and those that Python gives every module."""
    of_python = [name for name in globals() if name.startswith("__") and name.endswith("__")]
    return sorted({*of_python, *__all__})
