"""`bench run --flags full`: adds to a run, and changes nothing else of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from bench.cli import main
from bench.flags import substitute
from bench.store import Store
from bench.store.summary import AttackedSummary

SUITE = {
    "name": "quick",
    "version": 1,
    "title": "Quick",
    "data": "digits",
    "n_examples": 20,
    "threat_model": {"norm": "Linf", "eps": 0.04},
    "protocols": {"standard": {"attacks": [{"name": "apgd-ce", "parameters": {"steps": 10}}]}},
}


def test_full_flags_join_a_complete_run(
    write_submission: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(substitute, "TRAINING_STEPS", 5)
    suite = tmp_path / "quick.yaml"
    suite.write_text(yaml.safe_dump(SUITE))

    submission = str(write_submission())

    def call(*arguments: str) -> Result:
        folders = ["--results-dir", f"{tmp_path}/results", "--report-dir", f"{tmp_path}/reports"]
        candidate = ["--candidate", submission]
        command = ["run", "--suite", str(suite), *candidate, *folders, *arguments]
        return CliRunner().invoke(main, command)

    assert call().exit_code == 0
    (basic,) = Store(tmp_path / "results").summaries("quick")
    assert basic.flags_checked == "basic"
    second = call("--flags", "full")
    assert second.exit_code == 0, second.output
    assert "attacks of the reliability checks" in second.output
    (full,) = Store(tmp_path / "results").summaries("quick")
    assert full.flags_checked == "full"
    assert isinstance(full, AttackedSummary)
    assert full.attack_power is not None
    assert len(full.attack_power.plants) == 4
    kept = {"flags", "flags_checked", "attack_power"}
    assert full.model_dump(exclude=kept) == basic.model_dump(exclude=kept)
    assert "attacks of the reliability checks" not in call("--flags", "full").output


def test_a_certification_has_no_further_attacks(tmp_path: Path) -> None:
    command = ["run", "--suite", "digits-l2", "--protocol", "certified", "--flags", "full"]
    result = CliRunner().invoke(main, [*command, "--results-dir", str(tmp_path)])
    assert result.exit_code == 2
    assert "--flags cannot be used with protocol certified" in result.output
