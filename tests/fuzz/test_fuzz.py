"""Generated suites, submissions and archives: no traceback, and no number that does not hold.

A failing case names the command that makes it again, and keeps its files. `pytest -m slow` runs
1,000 cases; `python -m tests.fuzz --cases 1000` lists the failures by the rule that they break.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.fuzz.execution import run_case

CASES, MORE_CASES, PART = 150, 1000, 10


def _run(numbers: range, folder: Path) -> None:
    failures = []
    for number in numbers:
        files = folder / f"case-{number}"
        failure = run_case(number, files)
        if failure is None:
            shutil.rmtree(files)
        else:
            failures.append(str(failure))
    assert not failures, "\n\n".join(failures)


@pytest.mark.parametrize("first", range(0, CASES, PART))
def test_generated_cases(first: int, tmp_path: Path) -> None:
    _run(range(first, first + PART), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(CASES, MORE_CASES, PART))
def test_more_generated_cases(first: int, tmp_path: Path) -> None:
    _run(range(first, first + PART), tmp_path)
