"""Nothing fails for its display: characters, full disks and closed pipes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest
from click.testing import CliRunner

from bench.cli import main

SUITE = """
name: quick
version: 1
title: Digits – few
data: digits
n_examples: 9
threat_model: {norm: Linf, eps: 0.2}
protocols: {standard: {attacks: [apgd-ce]}}
candidates: [digits-standard]
"""
COMMANDS = (
    ["run", "--suite", "quick.yaml"],
    ["show", "quick/digits-standard"],
    ["list", "suites"],
    ["report"],
    ["check", "--candidate", "digits-standard"],
    ["export", "markdown", "--suite", "quick"],
    ["export", "latex", "--suite", "quick", "--out", "table.tex"],
    ["export", "csv", "--suite", "quick", "--out", "table.csv"],
)
SCRIPT = """
import json, sys
from bench.cli import main

codes = []
for arguments in json.loads(sys.argv[1]):
    try:
        main(arguments)
    except SystemExit as end:
        codes.append(end.code)
print("codes", *codes, file=sys.stderr)
"""


def call(
    folder: Path,
    commands: tuple[list[str], ...],
    stdout: int = subprocess.PIPE,
    variables: Mapping[str, str] = MappingProxyType({}),
) -> subprocess.CompletedProcess[bytes]:
    """Run commands one after the other in one process; exit codes are its last line of errors."""
    (folder / "quick.yaml").write_text(SUITE, encoding="utf-8")
    # tox sets the encoding of its own, which would overrule the locale.
    ours = {name: value for name, value in os.environ.items() if name != "PYTHONIOENCODING"}
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(commands)],
        cwd=folder,
        env={**ours, **variables},
        stdout=stdout,
        stderr=subprocess.PIPE,
        check=False,
    )


@pytest.mark.parametrize(
    ("encoding", "variables"),
    [
        ("latin-1", {"PYTHONIOENCODING": "latin-1"}),
        # Where the output is ASCII, click writes what is no table in UTF-8.
        ("utf-8", {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}),
    ],
)
def test_characters_that_the_output_lacks_are_replaced(
    tmp_path: Path, encoding: str, variables: dict[str, str]
) -> None:
    done = call(tmp_path, COMMANDS, variables=variables)
    assert done.stderr.decode().splitlines() == ["codes" + " 0" * len(COMMANDS)]
    shown = done.stdout.decode(encoding)
    assert "[66.37 ? 100.00]" in shown
    # Files are in UTF-8 whatever the output is in.
    for name in ("reports/quick.html", "table.tex", "table.csv"):
        assert (tmp_path / name).read_bytes().decode("utf-8")
    assert "Digits – few" in (tmp_path / "reports/quick.html").read_text("utf-8")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_costs_the_output_and_nothing_else(tmp_path: Path) -> None:
    with open("/dev/full", "wb") as full:
        done = call(tmp_path, COMMANDS[:2], stdout=full.fileno())
    assert done.stderr.decode().splitlines() == [
        "error: standard output: No space left on device",
        "error: standard output: No space left on device",
        "codes 1 1",
    ]
    assert list(tmp_path.glob("results/*/*/*/run.json"))
    assert (tmp_path / "reports" / "quick.html").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run"], "Missing option '--suite'. See `bench run --help`."),
        (["run", "--suite", "digits-linf", "--seed", "x"], "'x' is not a valid integer"),
        (["run", "--suite", "digits-linf", "--until-width", "nan"], "'nan' is not a finite number"),
        (["run", "--suite", "digits-linf", "--eps", "1e999999999"], "expected a number > 0"),
        (["run", "--suite", "digits-linf", "--n-example", "3"], "No such option"),
        (["list", "suits"], "'suits' is not one of"),
        (["shwo"], "No such command 'shwo'"),
        (["train", "--recipe", "none", "--dataset", "digits", "--out", "o"], "got 'none'"),
    ],
)
def test_wrong_usage_is_one_line(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(main, arguments, prog_name="bench")
    assert result.exit_code == 2
    (line,) = result.output.splitlines()
    assert line.startswith("error: ")
    assert message in line


def test_a_reader_that_leaves_ends_no_work(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = call(tmp_path, COMMANDS[:2], stdout=writer)
    finally:
        os.close(writer)
    assert done.stderr.decode().splitlines() == ["codes 0 0"]
    assert list(tmp_path.glob("results/*/*/*/run.json"))
