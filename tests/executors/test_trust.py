"""A submission's own code travels to workers, and only where it may run."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from bench.candidates import registry
from bench.candidates.registry import find_candidates
from bench.cli import main
from bench.executors.crew_executor import CrewExecutor
from bench.executors.in_process import InProcess
from bench.executors.local import LocalCrew
from bench.suites import load_suite
from tests.executors.digits import digits_task, outcomes, run

MODEL = """
from torch import nn

from .marks import leave


class Marking(nn.Sequential):
    def forward(self, images):
        leave()
        return super().forward(images)


def linear():
    return Marking(nn.Flatten(), nn.Linear(64, 10))
"""
MARKS = """
import os
import pathlib


def leave():
    pathlib.Path({folder!r}, str(os.getpid())).touch()
"""


def _submission(write_submission: Callable[..., Path], marks: Path) -> Path:
    """Write a submission whose code leaves a file for each process that it runs in."""
    folder = write_submission()
    (folder / "model.py").write_text(MODEL)
    (folder / "marks.py").write_text(MARKS.format(folder=str(marks)))
    marks.mkdir()
    return folder


@pytest.mark.parametrize("executor", ["local", "local:2", "ray"])
def test_code_of_a_submission_that_is_named_is_refused_before_workers_start(
    write_submission: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    executor: str,
) -> None:
    folder = _submission(write_submission, tmp_path / "marks")
    monkeypatch.setattr(registry, "shipped_submissions", lambda: {"linear": folder})
    monkeypatch.setattr("bench.cli.run.executing", None)  # nothing may get as far
    command = ["run", "--suite", "digits-linf", "--candidate", "linear", "--executor", executor]
    command += ["--results-dir", str(tmp_path / "results"), "--report-dir", str(tmp_path / "pages")]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 2, done.output
    assert "name the folder by its path or pass --trust-code" in " ".join(done.output.split())
    assert not list((tmp_path / "marks").iterdir())
    assert not (tmp_path / "results").exists() or not list((tmp_path / "results").rglob("*.npz"))


def test_code_of_a_submission_named_by_its_path_runs_on_a_worker(
    write_submission: Callable[..., Path], tmp_path: Path
) -> None:
    marks = tmp_path / "marks"
    folder = _submission(write_submission, marks)
    (reference,) = find_candidates([str(folder)], load_suite("digits-linf"))
    task = digits_task(reference.load().module, 8)
    task = replace(task, attacks=task.attacks[:1])
    expected = outcomes(run(task))
    assert {each.name for each in marks.iterdir()} == {str(os.getpid())}
    # A worker's machine has no such file: the code itself is sent.
    (folder / "model.py").unlink()
    (folder / "marks.py").unlink()
    crew = LocalCrew([torch.device("cpu")], fork=False)
    try:
        assert outcomes(run(task, CrewExecutor(crew, InProcess()))) == expected
    finally:
        crew.close()
    assert len(list(marks.iterdir())) == 2
