"""`bench list`, `train`, `report`, `show`, as users call them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bench.candidates.submission import read_submission
from bench.cli import main
from bench.store import Store
from tests.pages.runs import make_manifest, save_run, save_unreadable


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


def test_runs_are_listed_with_the_newest_last(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store, given = Store(tmp_path), f"--results-dir={tmp_path}"
    assert _call("list", "runs", given).output == "no runs\n"
    newer = make_manifest("digits-linf", "a-newer", 20)
    save_run(store, newer, 19, [11] * 4, finished="2026-01-02T11:00:00+00:00")
    save_run(store, make_manifest("digits-linf", "older", 20), 19, [12] * 4)
    save_run(store, make_manifest("cifar10-linf", "other", 20), 19, [12] * 4)
    save_unreadable(store, "digits-linf")
    rows = json.loads(_call("list", "runs", given, "--suite", "digits-linf", "--json").output)
    assert [row["run"].partition("@")[0] for row in rows] == [
        "digits-linf/older",
        "digits-linf/a-newer",
    ]
    assert rows[-1] == {
        "run": f"digits-linf/a-newer@{newer.run}",
        "kind": "evaluation",
        "protocol": "standard",
        "images": 20,
        "clean": 0.95,
        "robust": 0.55,
        "certified": None,
        "finished": "2026-01-02T11:00:00+00:00",
    }
    assert "old-candidate" in caplog.text
    last = _call("list", "runs", given).output.splitlines()[-2]
    assert [cell.strip() for cell in last.strip("│").split("│")] == [
        *(f"digits-linf/a-newer@{newer.run}", "evaluation", "standard", "20"),
        *("95.00", "55.00", "–", "2026-01-02 11:00 UTC"),
    ]


def test_candidates_of_a_suite_are_listed() -> None:
    rows = json.loads(_call("list", "candidates", "--suite", "digits-linf", "--json").output)
    assert "digits-mixed-nuts" in [row["name"] for row in rows]
    assert {tuple(row["suites"]) for row in rows} == {("digits-linf",)}
    refused = _call("list", "attacks", "--suite", "digits-linf")
    assert refused.exit_code == 2
    assert "--suite can only be used with candidates and runs, not attacks" in refused.output


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
