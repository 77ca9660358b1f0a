"""`bench check`: results against published and accepted numbers."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click
from rich.table import Table
from rich.text import Text

from bench.claims.accepted_records import load_records, together
from bench.claims.check import check
from bench.claims.comparison import Check
from bench.claims.filled_pages import fill
from bench.claims.formats import as_github, as_json, as_junit, number_text, verdict_text
from bench.cli import options
from bench.cli.tables import table_console, table_of
from bench.errors import InputError
from bench.formatting import interval
from bench.store import Store

MISMATCH = 4
FORMATS = {"json": as_json, "junit": as_junit, "github": as_github}


@click.command("check")
@options.suite(required=False)
@click.option("--candidate", help="A candidate's name or published id, SUITE/NAME, or a pattern.")
@options.results_dir
@click.option(
    "--accepted",
    "folders",
    multiple=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Compare also with the accepted results in this folder, which `bench accept` writes; "
    "repeatable.",
)
@click.option(
    "--require",
    multiple=True,
    metavar="NAME",
    help="Fail if a number about this candidate is not measured; named as for --candidate, "
    "repeatable.",
)
@click.option(
    "--format", "style", type=click.Choice(["table", *FORMATS]), default="table", show_default=True
)
@click.option(
    "--plan",
    is_flag=True,
    help="Print how many samples tell each claim from one that is 1 point lower.",
)
@click.option(
    "--assume-exchangeable",
    is_flag=True,
    help="Treat a run's first N samples as a random sample.",
)
@click.option(
    "--fill",
    "pages",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="Only write the tables between a Markdown page's markers anew, from the accepted records "
    "of this package; repeatable.",
)
def command(
    suite_name: str | None,
    candidate: str | None,
    results_dir: Path,
    folders: tuple[Path, ...],
    require: tuple[str, ...],
    style: str,
    plan: bool,
    assume_exchangeable: bool,
    pages: tuple[Path, ...],
) -> None:
    """Compare results with published numbers and with accepted ones.

    Accepted are this project's own results, and those of the folders --accepted.

    Exit codes: 4 a measured number is lower than published or accepted beyond chance, a clean
    accuracy differs beyond chance, or a number that --require names is not measured; 2 wrong usage
    or input; 0 else, also where nothing is measured.
    """
    if pages:
        for page in pages:
            click.echo(f"{page}: {'written anew' if fill(page) else 'nothing changed'}")
        return
    if not (plan or results_dir.is_dir()):
        raise InputError(f"--results-dir: expected a folder with results, got {results_dir}")
    checks = check(
        Store(results_dir),
        suite_name,
        candidate,
        assume_exchangeable,
        together([load_records(), *map(load_records, folders)]),
        require,
    )
    console = table_console()
    if plan:
        console.print(_plan(checks))
        return
    if style == "table":
        measured = [each for each in checks if each.measured is not None]
        # Hundreds of models that are not measured would hide the few that are.
        shown = checks if candidate else measured
        if shown:
            console.print(_table(shown))
        if len(shown) < len(checks):
            click.echo(f"{len(checks) - len(shown)} published or accepted numbers are not measured")
            for text in dict.fromkeys(
                f"{each.suite}/{each.name}: {verdict_text(each)}"
                for each in checks
                if each not in shown and each.verdict.note and not each.fails
            ):
                click.echo(text)
        for each in checks:
            if each.fails:
                click.echo(f"{each.suite}/{each.name}: {each.quantity} {verdict_text(each)}")
    else:
        click.echo(FORMATS[style](checks))
    sys.exit(MISMATCH if any(each.fails for each in checks) else 0)


def _table(checks: Sequence[Check]) -> Table:
    table = table_of(
        "suite", "model", "number", "reference", "measured", "n", "95%", "p", "verdict"
    )
    for each in checks:
        verdict = each.verdict
        cells = (
            each.suite,
            each.name,
            each.quantity,
            _number(each, each.published),
            _number(each, each.measured),
            "–" if each.n is None else f"{each.n:,}",
            "–" if verdict.interval is None else interval(verdict.interval),
            "–" if verdict.p_value is None else f"{verdict.p_value:.2g}",
        )
        style = "bold red" if each.fails else ""
        table.add_row(*(Text(cell) for cell in cells), Text(verdict_text(each), style=style))
    return table


def _number(check: Check, value: float | None) -> str:
    """Return an accuracy in percent without the sign, or a radius as it is."""
    return "–" if value is None else number_text(check, value).removesuffix("%")


def _plan(checks: Sequence[Check]) -> Table:
    table = table_of("suite", "model", "number", "reference", "n for 1 point, power 0.9")
    for each in checks:
        table.add_row(
            Text(each.suite),
            Text(each.name),
            each.quantity,
            _number(each, each.published),
            "–" if each.required is None else f"{each.required:,}",
        )
    return table
