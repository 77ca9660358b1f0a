"""Fuzz tests from the command line: `python -m tests.fuzz --cases 1000`, `... --case 17`."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import click
import torch

from tests.fuzz.execution import Failure, run_case


@click.command()
@click.option("--case", "single", type=int, help="One case by its number.")
@click.option("--cases", type=int, default=150, show_default=True, help="How many.")
@click.option("--first", type=int, default=0, show_default=True, help="The first one's number.")
@click.option(
    "--keep", type=click.Path(path_type=Path), help="Where failing cases' files are kept."
)
def command(single: int | None, cases: int, first: int, keep: Path | None) -> None:
    """Run cases; failures are listed by the rule that they break."""
    torch.set_num_threads(1)
    root = keep or Path(tempfile.mkdtemp(prefix="bench-fuzz-"))
    numbers = range(first, first + cases) if single is None else [single]
    start, failures = time.monotonic(), list[Failure]()
    for number in numbers:
        folder = root / f"case-{number}"
        shutil.rmtree(folder, ignore_errors=True)
        begun = time.monotonic()
        failure = run_case(number, folder)
        if time.monotonic() - begun > 5:
            click.echo(f"case {number} took {time.monotonic() - begun:.1f} s")
        if failure is None and single is None:
            shutil.rmtree(folder, ignore_errors=True)
        elif failure is not None:
            failures.append(failure)
            click.echo(str(failure))
            click.echo()
    groups = defaultdict[tuple[str, str], list[Failure]](list)
    for failure in failures:
        groups[failure.kind, failure.rule].append(failure)
    seconds = time.monotonic() - start
    click.echo(f"{len(failures)} of {len(numbers)} cases failed, {seconds:.0f} s, files: {root}")
    for (kind, rule), members in sorted(groups.items(), key=lambda item: -len(item[1])):
        click.echo(f"{len(members):4} {kind}: {rule}")
        for member in members:
            click.echo(f"       {member.number}: {member.what}: {member.detail[:160]}")
    raise SystemExit(1 if failures else 0)


if __name__ == "__main__":
    command()
