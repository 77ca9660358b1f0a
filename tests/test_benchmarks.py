"""The benchmarks are run by hand and seldom: what they import from the package must be there."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.mark.parametrize("path", sorted(BENCHMARKS.glob("*.py")), ids=lambda path: path.stem)
def test_names_imported_from_the_package_exist(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "bench":
            for each in node.names:
                assert _exists(str(node.module), each.name), f"line {node.lineno}: {each.name}"


def _exists(module: str, name: str) -> bool:
    """Return whether a module has an attribute or a submodule of a name."""
    if hasattr(importlib.import_module(module), name):
        return True
    try:
        importlib.import_module(f"{module}.{name}")
    except ImportError:
        return False
    return True
