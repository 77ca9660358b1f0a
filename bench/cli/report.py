"""`bench report`: write the HTML pages."""

from __future__ import annotations

from pathlib import Path

import click

from bench.cli import options
from bench.store import Store


def write_report(store: Store, out: Path, suite: str) -> None:
    """Write a suite's page and the index, and print where, if the suite has a complete run."""
    if not any(run.is_complete for run in store.runs(suite)):
        return
    from bench.pages.addresses import suite_page
    from bench.pages.build import build_report  # matplotlib: slow to import

    build_report(store, out, [suite])
    click.echo(f"report: {(out / suite_page(suite)).resolve()}")


@click.command("report")
@options.suite(required=False)
@options.results_dir
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("reports"),
    show_default=True,
    help="Folder for the pages.",
)
@click.option(
    "--figures",
    type=click.Path(file_okay=False, path_type=Path),
    help="Also write every figure to this folder, as SVG and PDF.",
)
def command(suite_name: str | None, results_dir: Path, out: Path, figures: Path | None) -> None:
    """Write the site from the records: an index, and self-contained pages of each suite."""
    store = Store(results_dir)
    from bench.pages.build import build_report  # matplotlib: slow to import

    index = build_report(store, out, [suite_name] if suite_name else None, figures)
    click.echo(f"report: {index}")
    if figures is not None:
        click.echo(f"figures: {figures}")
