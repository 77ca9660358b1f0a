"""A changed candidate never gets an old result; an unchanged one is not computed again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from click.testing import CliRunner, Result

from bench.candidates.submission_reference import SubmissionReference
from bench.cli import main
from bench.runs import many, session
from bench.store import Store
from bench.store.best_known import best_known
from bench.store.summary import Summary
from tests.cli.test_run import SUITE

CODE = """
import json, os, pathlib
import numpy as np
import torch
from torch import nn
from safetensors.torch import load_file

HERE = pathlib.Path(__file__).parent
CONFIG = json.loads((HERE / "config.json").read_text())
OUTSIDE = pathlib.Path({outside!r})


class Listed(nn.Module):
    def __init__(self):
        super().__init__()
        layer = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        layer.load_state_dict(load_file(OUTSIDE / "w.safetensors"))
        self.nets = [layer]
        self.calls = {extra}

    def forward(self, images):
        roll = CONFIG["roll"] + int(os.environ.get("TESTED_ROLL", "0"))
        return self.nets[0](images).roll(roll, dims=1)


def build():
    return Listed()
"""


@pytest.fixture
def call(tmp_path: Path) -> Callable[[Path], str]:
    """Calls `bench run` and returns what it says."""
    suite = tmp_path / "quick.yaml"
    suite.write_text(yaml.safe_dump(SUITE))

    def run(folder: Path) -> str:
        places = ["--results-dir", f"{tmp_path}/results", "--report-dir", f"{tmp_path}/reports"]
        command = ["run", "--suite", str(suite), "--engine", "reference", *places]
        result: Result = CliRunner().invoke(main, [*command, "--candidate", str(folder)])
        assert result.exit_code == 0, result.output
        return result.output

    return run


@pytest.fixture
def listed(tmp_path: Path, write_submission: Callable[..., Path]) -> Callable[..., Path]:
    """Writes a submission whose network is in a plain list and whose weights lie elsewhere."""

    def write(extra: str = "0") -> Path:
        folder = write_submission(weights=None, sha256=None, architecture="model:build")
        outside = tmp_path / "outside"
        outside.mkdir()
        (folder / "weights.safetensors").rename(outside / "w.safetensors")
        (folder / "model.py").write_text(CODE.format(outside=str(outside), extra=extra))
        (folder / "config.json").write_text(json.dumps({"roll": 0}))
        return folder

    return write


def test_what_decides_the_answers_makes_another_run(
    call: Callable[[Path], str],
    listed: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = listed()
    assert "clean 95.00%" in call(folder)
    assert "nothing was computed" in call(folder)

    (folder / "config.json").write_text(json.dumps({"roll": 1}))
    output = call(folder)
    assert "a new run: its files, its weights, its code or its options changed since run" in output
    assert "clean 0.00%" in output
    assert "nothing was computed" in call(folder)

    (folder / "config.json").write_text(json.dumps({"roll": 0}))
    assert "nothing was computed" in call(folder)

    monkeypatch.setenv("TESTED_ROLL", "1")
    output = call(folder)
    assert "a new run: its answers differ from those when run" in output
    assert "clean 0.00%" in output
    assert "nothing was computed" in call(folder)
    monkeypatch.delenv("TESTED_ROLL")
    assert "clean 95.00%" in call(folder)

    save_zeros(tmp_path / "outside" / "w.safetensors")
    assert "changed since run" in call(folder)

    runs = Store(tmp_path / "results").summaries("quick")
    assert len(runs) == 4
    (first,) = [run for run in runs if run.clean_accuracy == 0.95]
    joined = best_known(Store(tmp_path / "results"), first)
    assert joined.robust_accuracy == first.robust_accuracy


def save_zeros(path: Path) -> None:
    """Other weights."""
    from safetensors.torch import save_file

    save_file({"1.weight": torch.zeros(10, 64), "1.bias": torch.zeros(10)}, path)


def test_what_cannot_be_identified_is_run_anew_and_says_so(
    call: Callable[[Path], str], listed: Callable[..., Path], tmp_path: Path
) -> None:
    folder = listed(extra='open("/dev/null")')
    for _ in range(2):
        output = call(folder)
        assert output.count("not identified: calls (_io.TextIOWrapper)") == 1
        assert "nothing was computed" not in output
    runs: list[Summary] = Store(tmp_path / "results").summaries("quick")
    assert [run.manifest.repetition for run in runs] == [0, 1]
    assert all(run.manifest.unidentified for run in runs)


def test_a_run_loads_and_inspects_a_candidate_once(
    call: Callable[[Path], str],
    write_submission: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[str] = []
    load, inspect = SubmissionReference.load, session.inspect

    def counted_load(self: SubmissionReference) -> object:
        calls.append("load")
        return load(self)

    def counted_inspect(*arguments: object) -> object:
        calls.append("inspect")
        return inspect(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(SubmissionReference, "load", counted_load)
    for module in (session, many):
        monkeypatch.setattr(module, "inspect", counted_inspect)
    call(write_submission())
    assert calls == ["load", "inspect"]
