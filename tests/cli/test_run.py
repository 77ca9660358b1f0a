"""`bench run` as users call it: results, exit codes, resumption after kill -9."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner, Result
from safetensors.torch import load_file, save_file

from bench.candidates.weights import file_sha256
from bench.cli import main
from bench.store import Store

SUITE = {
    "name": "quick",
    "version": 1,
    "title": "Quick",
    "data": "digits",
    "n_examples": 20,
    "threat_model": {"norm": "Linf", "eps": 0.04},
    "protocols": {"standard": {"attacks": ["apgd-ce", "apgd-t"]}},
}


@pytest.fixture
def call(tmp_path: Path) -> Callable[..., Result]:
    """Calls `bench run` on a quick suite, its results under tmp_path."""
    suite = tmp_path / "quick.yaml"
    suite.write_text(yaml.safe_dump(SUITE))

    def run(*arguments: str) -> Result:
        folders = ["--results-dir", f"{tmp_path}/results", "--report-dir", f"{tmp_path}/reports"]
        command = ["run", "--suite", str(suite), "--engine", "reference", *folders, *arguments]
        return CliRunner().invoke(main, command)

    return run


def test_evaluates_reports_shows_and_reuses(
    call: Callable[..., Result], write_submission: Callable[..., Path], tmp_path: Path
) -> None:
    folder = write_submission()
    first = call("--candidate", str(folder))
    assert first.exit_code == 0, first.output
    assert "linear: clean 95.00%, robust" in first.output
    assert (tmp_path / "reports" / "quick.html").is_file()
    (summary,) = Store(tmp_path / "results").summaries("quick")
    assert summary.manifest.overrides == {}
    assert summary.autoattack_accuracy is None
    assert "nothing was computed" in call("--candidate", str(folder)).output

    variant = call("--candidate", str(folder), "--n-examples", "10", "--eps", "10/255")
    assert "(variant)" in variant.output
    show = ["show", "quick/linear", "--results-dir", f"{tmp_path}/results"]
    assert "n_examples = 10" in CliRunner().invoke(main, show).output
    whole = CliRunner().invoke(main, [*show[:1], f"quick/linear@{summary.run}", *show[2:]])
    assert f"clean      {100 * summary.clean_accuracy:.2f}%" in whole.output


def test_dry_run_computes_nothing(
    call: Callable[..., Result], write_submission: Callable[..., Path], tmp_path: Path
) -> None:
    name = "a-name-of-" + 60 * "x"
    result = call("--candidate", str(write_submission(name)), "--dry-run")
    assert result.exit_code == 0, result.output
    assert "all here" in result.output
    assert name in result.output
    assert not (tmp_path / "results").exists()


def test_a_plan_says_what_workers_cost(
    call: Callable[..., Result], write_submission: Callable[..., Path]
) -> None:
    plan = ["--candidate", str(write_submission()), "--dry-run", "--executor", "local:2"]
    priced = call(*plan, "--price-per-hour", "3600000").output
    *_, workers, _, hours, cost, _ = next(
        line.split("│") for line in priced.splitlines() if "linear" in line
    )
    assert workers.strip() == "2"
    for hour, price in zip(hours.split(" to "), cost.split(" to "), strict=True):
        exact = float(price.replace(",", "")) / 3_600_000
        assert float(hour) == pytest.approx(exact, rel=0.01)
        assert exact > 0
    assert "cost" not in call(*plan).output


@pytest.mark.parametrize(
    ("changes", "arguments", "message"),
    [
        ({}, ["--suite", "digits-l2", "--eps", "8"], "--eps: expected less than 8, the L2"),
        ({}, ["--candidate", "digits-standrad"], "did you mean digits-standard"),
        ({}, ["--n-examples", "0"], "0 is not in the range x>=1"),
        ({}, ["--n-examples", "361"], "at most 360 examples"),
        ({}, ["--eps", "wide"], "--eps: expected a number > 0"),
        ({}, ["--eps", "8"], "did you mean 8/255"),
        ({}, ["--price-per-hour", "2"], "--price-per-hour can only be used with --dry-run"),
        ({}, ["--dry-run", "--price-per-hour", "-1"], "-1.0 is not in the range x>=0"),
        ({}, ["--sample-seed", "3"], "--sample-seed can only be used with --sample random"),
        ({}, ["--sample", "random", "--budget", "half an hour"], "--budget: expected a time"),
        ({}, ["--until-width", "3"], "add --sample random"),
        ({"sha256": "0" * 64}, [], "weights.safetensors: expected SHA-256 0000"),
        ({"weights": "../weights.safetensors"}, [], "expected a path inside the folder"),
        ({"architecture": "os:system"}, [], "field architecture: expected a module below"),
        ({"architecture": "model.py:linear"}, [], "without its ending, 'model'; got 'model.py'"),
        ({"architecture_args": {"width": 3}}, [], "architecture_args: .*width"),
        ({"dataset": "cifar10"}, [], "is for cifar10 .field dataset of .*, suite quick has digits"),
        ({"dataset": None}, [], "submission.yaml: field dataset: expected the name of the suite"),
        ({"wieghts": "x"}, [], "submission.yaml: field wieghts"),
    ],
)
def test_wrong_input_is_named_and_nothing_runs(
    call: Callable[..., Result],
    write_submission: Callable[..., Path],
    tmp_path: Path,
    changes: dict[str, Any],
    arguments: list[str],
    message: str,
) -> None:
    folder = write_submission(**changes)
    named = [] if "--candidate" in arguments else ["--candidate", str(folder)]
    result = call(*named, *arguments)
    assert result.exit_code == 2, result.output
    assert re.search(message, result.output), result.output
    assert not list(tmp_path.glob("results/**/run.json"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda state: {**state, "2.weight": state["1.weight"].clone()}, "unexpected 2.weight"),
        (lambda state: {"1.bias": state["1.bias"]}, "missing 1.weight"),
        (lambda state: {**state, "1.bias": torch.zeros(9)}, r"1.bias: expected shape \(10,\)"),
        (lambda state: {**state, "1.bias": torch.full((10,), torch.nan)}, "got NaN or infinity"),
        (
            lambda state: {
                **{f"net.{name}": tensor for name, tensor in state.items()},
                "scale": torch.ones(1),
            },
            "`net`, beside scale; then write `weights_key: net` in submission.yaml",
        ),
    ],
)
def test_weights_that_do_not_fit(
    call: Callable[..., Result],
    write_submission: Callable[..., Path],
    damage: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]],
    message: str,
) -> None:
    folder = write_submission()
    weights = folder / "weights.safetensors"
    save_file(damage(load_file(weights)), weights)
    fields = yaml.safe_load((folder / "submission.yaml").read_text())
    fields["sha256"] = file_sha256(weights)
    (folder / "submission.yaml").write_text(yaml.safe_dump(fields))
    result = call("--candidate", str(folder))
    assert result.exit_code == 2, result.output
    assert re.search(message, result.output), result.output


def test_probabilities_and_randomness_are_flagged(
    call: Callable[..., Result], write_submission: Callable[..., Path], tmp_path: Path
) -> None:
    folder = write_submission()
    (folder / "model.py").write_text(
        "import torch\nfrom torch import nn\n\n\n"
        "class Noisy(nn.Sequential):\n"
        "    def forward(self, images):\n"
        "        logits = super().forward(images)\n"
        "        return (logits + 0.1 * torch.randn_like(logits)).softmax(dim=1)\n\n\n"
        "def linear():\n    return Noisy(nn.Flatten(), nn.Linear(64, 10))\n"
    )
    result = call("--candidate", str(folder))
    assert result.exit_code == 0, result.output
    (summary,) = Store(tmp_path / "results").summaries("quick")
    assert {"probabilities", "randomized"} <= {flag.name for flag in summary.flags}


def test_unavailable_candidates_do_not_stop_the_others(
    call: Callable[..., Result], write_submission: Callable[..., Path]
) -> None:
    url = "http://127.0.0.1:9/weights.safetensors"
    here, away = write_submission("here"), write_submission("away", weights=url)
    result = call("--candidate", str(away), "--candidate", str(here))
    assert result.exit_code == 3, result.output
    assert "away: unavailable: weights cannot be downloaded from" in result.output
    assert "here: clean 95.00%" in result.output


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("def linear(:\n", r"model.py: SyntaxError: invalid syntax \(model.py, line 1\)$"),
        ("import sys\nsys.exit(7)\n", r"model.py: SystemExit: 7 \(model.py, line 2\)"),
        ("def linear():\n    raise SystemExit\n", "architecture: SystemExit: no reason given"),
        ("import nowhere_to_be_found\n", "model.py: ModuleNotFoundError: .*nowhere_to_be_found"),
        (
            "def linear():\n    raise RuntimeError('no\\nluck')\n",
            r"architecture: RuntimeError: no luck \(model.py, line 2\)",
        ),
        (
            "from torch import nn\n\n\nclass Net(nn.Linear):\n    def forward(self, images):\n"
            "        raise KeyError('x')\n\n\ndef linear():\n    return Net(64, 10)\n",
            "candidate linear: expected logits of images .*, got KeyError",
        ),
    ],
)
def test_what_a_defences_own_code_raises_is_named(
    call: Callable[..., Result],
    write_submission: Callable[..., Path],
    tmp_path: Path,
    code: str,
    message: str,
) -> None:
    folder = write_submission(**({"weights": None, "sha256": None} if "Net" in code else {}))
    (folder / "model.py").write_text(code)
    result = call("--candidate", str(folder))
    assert result.exit_code == 2, result.output
    assert re.search(message, result.output, re.MULTILINE), result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("reason", "message"),
    [
        ("raise AttributeError('no\\nscale')", r"AttributeError: no scale \(model.py, line 7\)"),
        ("nn.functional.nll_loss(images, 'x')", r"TypeError: .* \(model.py, line 7\)"),
        ("raise SystemExit(7)", r"SystemExit: 7 \(model.py, line 7\)"),
    ],
)
def test_what_a_defence_raises_during_the_attack_does_not_stop_the_others(
    call: Callable[..., Result],
    write_submission: Callable[..., Path],
    reason: str,
    message: str,
) -> None:
    bad, good = write_submission("bad"), write_submission("good")
    # Before the attack it sees the digits as they are, of 17 grey levels.
    (bad / "model.py").write_text(
        "from torch import nn\n\n\nclass Net(nn.Sequential):\n"
        "    def forward(self, images):\n        if (16 * images).frac().any():\n"
        f"            {reason}\n        return super().forward(images)\n\n\n"
        "def linear():\n    return Net(nn.Flatten(), nn.Linear(64, 10))\n"
    )
    result = call("--candidate", str(bad), "--candidate", str(good))
    assert result.exit_code == 1, result.output
    assert re.search(f"^bad: failed: {message}$", result.output, re.MULTILINE), result.output
    assert "good: clean 95.00%" in result.output


def test_a_gradient_that_fails_ends_the_evaluation_in_one_line(
    call: Callable[..., Result], write_submission: Callable[..., Path]
) -> None:
    folder = write_submission()
    (folder / "model.py").write_text(
        "from torch import nn\n\n\nclass Net(nn.Sequential):\n"
        "    def forward(self, images):\n        assert not images.requires_grad\n"
        "        return super().forward(images)\n\n\n"
        "def linear():\n    return Net(nn.Flatten(), nn.Linear(64, 10))\n"
    )
    result = call("--candidate", str(folder), "--engine", "fast")
    assert result.exit_code == 1, result.output
    assert re.search("^error: .*AssertionError", result.output, re.MULTILINE), result.output


def test_images_too_small_for_an_attack_are_refused_before_another_runs(
    write_submission: Callable[..., Path], tmp_path: Path
) -> None:
    arrays = {"images": np.zeros((4, 1, 4, 16), np.float32), "labels": [0, 1, 2, 3]}
    np.savez(tmp_path / "small.npz", **arrays, classes=np.arange(10))
    changes = {
        "data": {"npz": "small.npz"},
        "n_examples": None,
        "threat_model": "L2 0.5",
        "protocols": {"standard": {"attacks": ["apgd-ce", "square"]}},
    }
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(SUITE | changes))
    folders = ["--results-dir", f"{tmp_path}/results", "--report-dir", f"{tmp_path}/reports"]
    named = ["--candidate", str(write_submission(dataset="small"))]
    command = ["run", "--suite", f"{tmp_path}/small.yaml", *named, *folders]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 2, result.output
    assert "square in L2 needs images of at least 5 rows, those of small have 4" in result.output
    assert "evaluating" not in result.output


def test_unwritable_results(
    call: Callable[..., Result], write_submission: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "results").write_text("a file")
    result = call("--candidate", str(write_submission()))
    assert result.exit_code == 2
    assert "--results-dir" in result.output


DYING = """
import os, signal, sys
from pathlib import Path
from bench.cli import main

files_left, replace = int(sys.argv.pop(1)), Path.replace

def replace_or_die(self, target):
    global files_left
    files_left -= 1
    if files_left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return replace(self, target)

Path.replace = replace_or_die
main()
"""
"""Runs the command, and kills it when a file is written but does not have its name yet."""


def test_killed_runs_end_as_if_left_alone(
    write_submission: Callable[..., Path], tmp_path: Path
) -> None:
    folder = write_submission()
    suite = tmp_path / "quick.yaml"
    suite.write_text(yaml.safe_dump(SUITE | {"n_examples": 60}))

    def run(results: str, files: int) -> int:
        arguments = ["--suite", str(suite), "--candidate", str(folder), "--batch-size", "5"]
        folders = ["--results-dir", f"{tmp_path}/{results}", "--report-dir", f"{tmp_path}/reports"]
        command = [sys.executable, "-W", "ignore", "-c", DYING, str(files), "run"]
        return subprocess.run(
            [*command, "--engine", "reference", *arguments, *folders],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            check=False,
        ).returncode

    assert run("alone", files=1000) == 0
    for files in (3, 9):
        assert run("killed", files) == -signal.SIGKILL
    assert run("killed", files=1000) == 0
    left, resumed = (Store(tmp_path / name).runs("quick")[0] for name in ("alone", "killed"))
    assert left.samples().equals(resumed.samples())
    untimed = [name for name in left.attempts().columns if name != "seconds"]
    assert left.attempts()[untimed].equals(resumed.attempts()[untimed])
    assert json.loads((left.path / "manifest.json").read_text())["suite"] == "quick"
    assert left.path.name == resumed.path.name
