"""Names that almost mean a candidate say what would be right."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bench.candidates.registry import find_candidate
from bench.errors import InputError
from bench.suites import load_suite


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("python:nets.py:net", "expected a module, not its file: nets:net"),
        ("python:absent:net", "there is no module absent"),
        ("python:nets:nett", "nets has no nett; did you mean net?"),
    ],
)
def test_a_function_that_is_not_there(
    name: str, advice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nets.py").write_text("def net():\n    return None\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=advice.replace("?", r"\?")):
        find_candidate(name, load_suite("digits-linf"), None, trust_code=True).load()


def test_the_file_of_a_submission(write_submission: Callable[..., Path]) -> None:
    folder = write_submission()
    with pytest.raises(InputError, match=f"expected the submission's folder, such as {folder}"):
        find_candidate(f"{folder}/submission.yaml", load_suite("digits-linf"), None)
