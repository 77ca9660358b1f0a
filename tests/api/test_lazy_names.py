"""`import bench` is light, and every name of the interface is there when it is asked for."""

from __future__ import annotations

import subprocess
import sys

import pytest

import bench


def test_importing_the_package_imports_nothing_that_is_slow() -> None:
    code = (
        "import bench, sys; dir(bench); bench.errors.InputError; bench.Linf(8 / 255);"
        "print([each for each in ('torch', 'pandas', 'matplotlib') if each in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", bench.__all__)
def test_every_name_of_the_interface_is_there(name: str) -> None:
    assert getattr(bench, name) is not None
    assert name in dir(bench)


def test_completion_shows_the_interface_and_nothing_else() -> None:
    shown = {name for name in dir(bench) if not (name.startswith("__") and name.endswith("__"))}
    assert shown == {*bench.__all__} - {"__version__"}
    assert {"__doc__", "__name__", "__version__"} <= {*dir(bench)}


def test_other_names_are_missing_as_python_says_it() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'evalute'"):
        _ = bench.evalute
