"""The workflows that ship: every `bench` command in them is one that exists."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest
import yaml

from bench.cli import main

ROOT = Path(__file__).parent.parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def _commands(path: Path) -> list[list[str]]:
    jobs = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"].values()
    scripts = [step.get("run", "") for job in jobs for step in job["steps"]]
    found = [re.findall(r"bin/bench ([^>|\n]+)", script) for script in scripts]
    return [shlex.split(line) for lines in found for line in lines]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_commands_of_workflows_parse(path: Path) -> None:
    stand_ins = {"$SUITE": "cifar100-linf", "$SAMPLE_SEED": "7"}
    for words in _commands(path):
        name, *arguments = [stand_ins.get(word, word) for word in words]
        context = click.Context(main)
        command = main.get_command(context, name)
        assert command is not None
        command.make_context(name, arguments)


def test_both_kinds_of_jobs_ship() -> None:
    assert {path.stem for path in WORKFLOWS} >= {"nightly", "tests"}
    nightly = _commands(ROOT / ".github" / "workflows" / "nightly.yml")
    assert {words[0] for words in nightly} == {"run", "check"}
