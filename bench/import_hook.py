"""The import hook that makes `import robustbench` work; installing it imports nothing.

See `bench.robustbench`, which the hook loads when something imports `autoattack`.
"""

from __future__ import annotations

import importlib
import sys
from importlib.abc import Loader
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class _AutoAttackLoader(Loader):
    """Makes the modules `autoattack` and `autoattack.state`."""

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        module = ModuleType(spec.name, "pyautoattack behind the interface of autoattack")
        if spec.name == "autoattack":
            adapter = importlib.import_module("bench.robustbench")
            module.__dict__["AutoAttack"] = adapter.AutoAttack
        else:
            # The reference, behind this interface, writes no states.
            fast = importlib.import_module("bench.autoattack")
            module.__dict__["EvaluationState"] = fast.EvaluationState
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Do nothing: `create_module` returns finished modules."""


class _Finder:
    """Answers `import autoattack`, and checks torchvision before `import robustbench` fails on it.

    A distribution that really installs a module `autoattack` keeps its name.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname == "robustbench":
            importlib.import_module("bench.robustbench").check_torchvision()
        if fullname == "autoattack" and PathFinder.find_spec(fullname) is None:
            return ModuleSpec(fullname, _AutoAttackLoader(), is_package=True)
        if fullname == "autoattack.state" and isinstance(
            getattr(sys.modules["autoattack"].__spec__, "loader", None), _AutoAttackLoader
        ):
            return ModuleSpec(fullname, _AutoAttackLoader())
        return None


def make_importable() -> None:
    """Install the import hook, once, that makes `import robustbench` work."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
