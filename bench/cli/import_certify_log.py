"""`bench import-certify-log`: import a published certification log."""

from __future__ import annotations

from pathlib import Path

import click

from bench import data
from bench.cli import options
from bench.store import Store
from bench.suites import load_suite


@click.command("import-certify-log")
@click.argument("file", type=click.Path(path_type=Path))
@options.suite(required=True)
@click.option("--candidate", required=True, help="Name of the log's classifier.")
@click.option(
    "--sigma",
    type=float,
    required=True,
    help="Standard deviation of its noise, in the [0, 1] pixel scale.",
)
@click.option("--source", default="", help="Where the log comes from: a paper, an address.")
@options.data_dir
@options.results_dir
def command(
    file: Path,
    suite_name: str,
    candidate: str,
    sigma: float,
    source: str,
    data_dir: Path | None,
    results_dir: Path,
) -> None:
    """Import FILE, a certification log in the format of Cohen et al.'s scripts.

    The columns are idx, label, predict (-1: abstained), radius and correct, separated by tabs; the
    file may be packed by gzip. Labels are compared with the suite's data set.
    """
    from bench.cli.display import Display  # torch: slow to import
    from bench.runs.imported_log import import_certification_log

    suite = load_suite(suite_name)
    dataset = data.load_source(suite.data, data_dir, suite.n_examples)
    outcome = import_certification_log(
        file, suite, dataset, candidate, sigma, Store(results_dir), source, click.echo
    )
    with Display() as display:
        display.result(outcome)
