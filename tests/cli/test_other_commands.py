"""`bench list`, `train`, `report`, `show`, as users call them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bench.candidates.submission import read_submission
from bench.cli import main


def _call(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("suites", "cifar100-linf"),
        ("attacks", "apgd-t"),
        ("candidates", "robustbench:Wang2023Better_WRN-70-16"),
        ("recipes", "mixing-network"),
    ],
)
def test_list(kind: str, name: str) -> None:
    rows = json.loads(_call("list", kind, "--json").output)
    assert name in [row["name"] for row in rows]
    # In a table a long name goes on in the next line.
    cells = (
        line.strip("│┃ ").partition("│")[0].strip()
        for line in _call("list", kind).output.splitlines()
    )
    assert name in "".join(cells)


def test_a_recipes_settings_are_listed() -> None:
    (adversarial, *_) = json.loads(_call("list", "recipes", "--json").output)
    settings = {each["name"]: each for each in adversarial["settings"]}
    assert settings["eps"] == {
        "name": "eps",
        "type": "a number above 0 and at most 1",
        "required": True,
        "default": None,
        "meaning": "Radius of the threat model.",
    }
    assert settings["batch_size"]["default"] == 128
    assert json.loads(_call("list", "recipes", "adversarial", "--json").output) == adversarial
    shown = _call("list", "recipes", "adversarial").output
    assert "digits-robust" in shown
    for name, each in settings.items():
        assert name in shown
        assert each["meaning"].split()[0] in shown
    assert "settings" not in _call("list", "recipes").output


def test_a_name_beside_anything_but_recipes_is_refused() -> None:
    result = _call("list", "suites", "digits-linf")
    assert result.exit_code == 2
    assert "expected no name beside suites, got 'digits-linf'" in result.output
    result = _call("list", "recipes", "adversarail")
    assert result.exit_code == 2
    assert "expected a registered recipe" in result.output


def test_train_writes_a_submission_that_can_be_run(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    arguments = ["train", "--recipe", "standard", "--dataset", "digits", "--out", str(folder)]
    result = _call(*arguments, "--set", "epochs=2")
    assert result.exit_code == 0, result.output
    assert "epoch 2/2, loss" in result.output
    assert read_submission(folder).training["settings"]["epochs"] == 2
    results = ["--results-dir", f"{tmp_path}/results", "--report-dir", f"{tmp_path}/reports"]
    run = ["run", "--suite", "digits-linf", "--candidate", str(folder), "--n-examples", "5"]
    assert _call(*run, "--dry-run", *results).exit_code == 0
    again = _call(*arguments)
    assert again.exit_code == 2
    assert "--resume" in again.output
    assert _call(*arguments, "--set", "epoch=2").exit_code == 2


def test_train_refuses_a_device_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    folder = tmp_path / "mine"
    arguments = ["train", "--recipe", "standard", "--dataset", "digits", "--out", str(folder)]
    result = _call(*arguments, "--device", "cuda")
    assert result.exit_code == 2
    assert "--device: expected a CUDA device" in result.output
    assert not folder.exists()


def test_nothing_to_show_is_said(tmp_path: Path) -> None:
    for arguments, message in (
        (["report"], "no complete run in"),
        (["show", "digits-linf/digits-standard"], "expected SUITE/CANDIDATE[@RUN]"),
        (["show", "digits"], "no complete run 'digits'"),
        (["check", "--results-dir", "nowhere"], "expected a folder with results, got nowhere"),
    ):
        folder = [] if "--results-dir" in arguments else ["--results-dir", str(tmp_path)]
        result = _call(*arguments, *folder)
        assert result.exit_code == 2
        assert message in result.output


def test_a_reference_cannot_leave_the_results_folder(tmp_path: Path) -> None:
    outside = tmp_path / "outside" / "candidate" / "run"
    outside.mkdir(parents=True)
    (outside / "manifest.json").write_text("{}")
    (outside / "run.json").write_text("{}")
    (tmp_path / "results").mkdir()
    result = _call("show", "../outside/candidate", "--results-dir", str(tmp_path / "results"))
    assert result.exit_code == 2
    assert "no complete run" in result.output
