"""A new attack: one file, through public interfaces only; the one that the documentation shows."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from torch import Tensor

from bench.attacks import ATTACKS, AttackPlan, AttackRequest, Definition, register_attack
from bench.attacks.plain import attack_images
from bench.attacks.registry import plan_attack
from bench.candidates.registry import find_candidate
from bench.cli import main
from bench.data import load
from bench.errors import InputError
from bench.suites.suite import load_suite

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_attack.py"


SUITE = {
    "name": "own",
    "version": 1,
    "title": "Own",
    "data": "digits",
    "threat_model": {"norm": "Linf", "eps": 0.2},
    "protocols": {"standard": {"attacks": ["fgsm"]}},
}


@pytest.fixture(scope="module", autouse=True)
def registered() -> None:
    runpy.run_path(str(EXAMPLE))


def test_an_attack_from_outside_runs(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(SUITE))
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


def changed(folder: Path, before: str, after: str) -> Path:
    """Write the example with a change, under the name of a module that no other test has."""
    text = EXAMPLE.read_text().replace('"fgsm"', f'"{folder.name}"')
    assert before in text
    path = folder / f"{folder.name}.py"
    path.write_text(text.replace(before, after))
    suite = SUITE | {"protocols": {"standard": {"attacks": [folder.name]}}}
    (folder / "own.yaml").write_text(yaml.safe_dump(suite))
    return path


def run_file(path: Path) -> subprocess.CompletedProcess[str]:
    """Run the attack of a file in a process of its own, as a user does."""
    command = [sys.executable, "-m", "bench", "--plugin", str(path), "run"]
    given = ["--suite", str(path.with_name("own.yaml")), "--candidate", "digits-standard"]
    places = ["--results-dir", f"{path.parent}/results", "--report-dir", f"{path.parent}/reports"]
    return subprocess.run(
        [*command, *given, *places, "--n-examples", "20"], capture_output=True, text=True
    )


def test_an_attack_with_changed_code_runs_again(tmp_path: Path) -> None:
    folder = tmp_path / "attack-changed"
    folder.mkdir()
    sign = "self.eps * gradient.sign()"
    for after in (sign, sign, "-" + sign):
        path = changed(folder, sign, after)
        done = run_file(path)
        assert done.returncode == 0, done.stderr
    manifests = [json.loads(each.read_text()) for each in folder.rglob("manifest.json")]
    digests = [each["attacks"][0]["code_sha256"] for each in manifests]
    assert len(digests) == len(set(digests)) == 2


def test_an_attack_that_leaves_the_ball_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "attack-outside"
    folder.mkdir()
    done = run_file(changed(folder, "self.eps * gradient.sign()", "0.5 * gradient.sign()"))
    assert done.returncode == 1
    assert "attack attack-outside: expected images within Linf 0.2" in done.stderr
    assert "project them" in done.stderr


def test_a_definition_is_replaced_from_its_own_place_alone() -> None:
    def build(request: AttackRequest) -> AttackPlan:
        raise NotImplementedError

    def other(request: AttackRequest) -> AttackPlan:
        raise NotImplementedError

    register_attack("test-again", Definition("one", {"steps": 1}, build))
    second = register_attack("test-again", Definition("two", {"steps": 1, "heat": 0.5}, build))
    assert ATTACKS["test-again"] is second
    with pytest.raises(InputError, match="expected a name that is free"):
        register_attack("test-again", Definition("three", {"steps": 1}, other))
    for wrong, message in (
        ({"heat": "warm"}, "a finite number for heat"),
        ({"steps": 0.5}, "whole"),
    ):
        with pytest.raises(InputError, match=message):
            plan_attack("test-again", wrong, norm="Linf", eps=0.1, classes=10)


def test_a_loss_of_ones_own_breaks_a_saturated_network() -> None:
    runpy.run_path(str(EXAMPLE.with_name("own_loss.py")))
    samples = load("digits").first(40)
    network = find_candidate("digits-standard", load_suite("digits-linf")).load().module

    def saturated(images: Tensor) -> Tensor:
        return 1000 * network(images)

    def left(name: str, **parameters: float) -> int:
        found = attack_images(
            name, saturated, samples.images, samples.labels, norm="Linf", eps=0.1, steps=10,
            **parameters,
        )  # fmt: skip
        return int((network(found).argmax(dim=1) == samples.labels).sum())

    assert left("apgd-warm", temperature=1000.0) < left("apgd-ce")
