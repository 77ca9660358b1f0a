"""`bench audit`: test what is claimed of a candidate, within a time."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.table import Table
from rich.text import Text

from bench.auditing.records import Records
from bench.auditing.verdict import bounds_text
from bench.cli import options
from bench.cli.tables import table_console, table_of
from bench.formatting import count, duration, percent

if TYPE_CHECKING:
    from bench.auditing.report import Report

REFUTED, FAILED = 4, 1
BETWEEN_LINES = 10.0


@click.command("audit")
@click.argument("candidate")
@click.option(
    "--claim",
    "claims",
    multiple=True,
    required=True,
    metavar="NAME=PERCENT",
    help="What is claimed: clean, autoattack, robust or best-known; repeatable.",
)
@options.suite(required=True)
@click.option(
    "--budget", default="30m", show_default=True, help="The time that it has, such as 30m or 2h."
)
@click.option(
    "--witnesses",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file of adversarial images that came with the artefact; repeatable.",
)
@click.option(
    "--results",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A folder of results that came with the artefact; its witnesses are verified.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the report and its records. Default: audits/SUITE/CANDIDATE.",
)
@options.architecture
@options.data_dir
@options.model_dir
@options.device
@options.seed
@click.option(
    "--memory",
    type=options.FiniteRange(min=1),
    help="Most memory of the candidate's process, in GiB. Default: three quarters of all.",
)
def command(
    candidate: str,
    claims: tuple[str, ...],
    suite_name: str,
    budget: str,
    witnesses: tuple[Path, ...],
    results: Path | None,
    out: Path | None,
    architecture: str | None,
    data_dir: Path | None,
    model_dir: Path | None,
    device: str,
    seed: int,
    memory: float | None,
) -> None:
    """Test what is claimed of a candidate, and write one page about what came of it.

    CANDIDATE is named as for `bench run`. Its code runs in a process of its own, without network
    where the system allows that, and within limits of memory and time.

    Exit codes: 4 a claim is refuted; 1 the candidate cannot be loaded; 2 wrong usage or input; 3
    something cannot be downloaded; 0 else.
    """
    from bench.auditing.run import audit

    console = table_console()
    lines = _Lines()
    made = audit(
        candidate,
        claims,
        suite_name,
        budget=budget,
        witnesses=witnesses,
        results=results,
        out=out,
        seed=seed,
        device=device,
        memory=memory,
        architecture=architecture,
        data_dir=data_dir,
        model_dir=model_dir,
        tell=lines.tell,
    )
    report = made.report
    console.print(_table(report))
    for each in report.verdicts:
        more = "" if each.more is None else f"; about {count(each.more)} more images would decide"
        click.echo(f"{each.name}: {each.outcome}: {each.reason}{more}")
    for item in report.checklist:
        if item.is_concern:
            click.echo(f"{item.what}: {item.state}: {item.figure}")
    for left_out in report.not_done:
        click.echo(
            f"{'failed' if left_out.is_failure else 'left out'}: {left_out.what}: {left_out.why}"
        )
    if report.isolation is not None and report.isolation.network:
        click.echo(f"the candidate's code: {report.isolation.network_note}")
    for step in report.next[:1]:
        click.echo(f"next: {step.command}")
    click.echo(f"wrote {made.page}, {made.json}, {made.form}")
    sys.exit(REFUTED if report.is_refuted else FAILED if report.loaded is None else 0)


_DOING = {
    "start": "starting the candidate's process",
    "load": "loading the candidate",
    "clean": "predicting the clean test images",
    "results": "verifying the results that came with it",
    "express": "attacking a random sample, round by round",
    "flags": "measuring the flags that need attacks of their own",
    "end": "writing the report",
}
"""What the terminal says of each stage."""


class _Lines:
    """Prints a line where the stage changes, and now and then how far the rounds are."""

    def __init__(self) -> None:
        self._stage, self._images, self._last = "", 0, 0.0

    def tell(self, records: Records) -> None:
        """Print what is new."""
        images = len(records.rounds.indices) if records.rounds else 0
        if records.stage != self._stage:
            click.echo(_DOING.get(records.stage, records.stage))
        elif images == self._images or time.monotonic() - self._last < BETWEEN_LINES:
            return
        elif records.rounds:
            standing = sum(records.rounds.standing)
            click.echo(f"  {count(images)} images, {count(standing)} survive")
        self._stage, self._images, self._last = records.stage, images, time.monotonic()


def _table(report: Report) -> Table:
    table = table_of("claim", "claimed", "measured", "bounds", "images", "verdict")
    for each in report.verdicts:
        cells = (
            each.name,
            percent(each.claimed),
            percent(each.measured),
            bounds_text(each),
            f"{count(each.n)} of {count(each.population)}",
        )
        style = "bold red" if each.outcome == "refuted" else ""
        table.add_row(*(Text(cell) for cell in cells), Text(each.outcome, style=style))
    table.title = Text(f"{report.candidate} under {report.suite}: {duration(report.seconds)}")
    return table
