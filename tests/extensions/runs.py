"""A user's own suite, and the commands that the examples here give."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner, Result

from bench.cli import main

SUITE = """
name: {name}
version: 1
title: Digits in a suite of one's own
data: {data}
n_examples: 12
threat_model: {{norm: Linf, eps: 0.1}}
protocols:
  {protocol}
"""


def write_suite(folder: Path, name: str, protocol: str, data: str = "digits") -> Path:
    """Write a suite with one protocol, such as `standard: {attacks: [apgd-ce]}`."""
    path = folder / f"{name}.yaml"
    path.write_text(SUITE.format(name=name, protocol=protocol, data=data))
    return path


def call(folder: Path, *arguments: str) -> Result:
    """Run a command that reads and writes `results` in a folder."""
    results = ["--results-dir", str(folder / "results")]
    return CliRunner().invoke(main, [*arguments, *results])


def run(folder: Path, suite: Path, candidate: Path | str, *arguments: str) -> Result:
    """Run a candidate under a suite; the report is written into `reports`."""
    names = ["--suite", str(suite), "--candidate", str(candidate)]
    return call(folder, "run", *names, "--report-dir", str(folder / "reports"), *arguments)


def page(folder: Path, name: str) -> str:
    """Return the page of a suite."""
    return (folder / "reports" / f"{name}.html").read_text(encoding="utf-8")
