"""A new attack: one file, through public interfaces only; the one that the documentation shows."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from bench.cli import main

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_attack.py"


@pytest.fixture(scope="module", autouse=True)
def registered() -> None:
    runpy.run_path(str(EXAMPLE))


def test_an_attack_from_outside_runs(tmp_path: Path) -> None:
    suite = {
        "name": "own",
        "version": 1,
        "title": "Own",
        "data": "digits",
        "threat_model": {"norm": "Linf", "eps": 0.2},
        "protocols": {"standard": {"attacks": ["fgsm"]}},
    }
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(suite))
    command = ["run", "--suite", str(tmp_path / "own.yaml"), "--candidate", "digits-standard"]
    places = ["--results-dir", str(tmp_path / "results"), "--report-dir", str(tmp_path / "reports")]
    result = CliRunner().invoke(main, [*command, *places, "--n-examples", "40"])
    assert result.exit_code == 0, result.output
    verify = ["verify", "own/digits-standard", "--suite", str(tmp_path / "own.yaml")]
    verified = CliRunner().invoke(main, [*verify, *places[:2]])
    assert verified.exit_code == 0, verified.output
    (path,) = (tmp_path / "results").glob("**/run.json")
    (attack,) = json.loads(path.read_text())["attacks"]
    assert attack["name"] == "fgsm"
    assert attack["broken"] > 20
    assert 1 - attack["accuracy_after"] >= attack["broken"] / 40
