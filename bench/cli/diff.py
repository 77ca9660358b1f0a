"""`bench diff`: candidates on the same samples."""

from __future__ import annotations

from pathlib import Path

import click
from rich.text import Text

from bench.cli import options
from bench.cli.tables import table_console, table_of
from bench.errors import InputError
from bench.formatting import percent, points, selection, threat_model
from bench.pages.comparison import RunComparison, compare_runs, protocol_text
from bench.pages.run_choice import chosen_runs
from bench.store import Store
from bench.store.files import safe_name, write

SHOWN = 10
"""Differing samples that are printed."""


@click.command("diff")
@click.argument("references", metavar="A B [C...]", nargs=-1, required=True)
@options.suite(required=False)
@options.results_dir
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the comparison as one HTML page, too.",
)
def command(
    references: tuple[str, ...], suite_name: str | None, results_dir: Path, out: Path | None
) -> None:
    """Compare candidates on the samples that all of them were evaluated on.

    Each is named as for `bench show`, SUITE/CANDIDATE[@RUN], or by its name alone with --suite.
    Without @RUN, runs of one protocol are taken if there are any, those that share the most
    samples, and then the newest.
    """
    store = Store(results_dir)
    named = [_reference(each, suite_name) for each in references]
    comparison = compare_runs(store, chosen_runs(store, named))
    console = table_console()
    first = comparison.runs[0].manifest
    console.print(
        Text(
            f"{comparison.n:,} shared samples of {first.dataset.name}, "
            f"{threat_model(first.threat_model)}"
        ),
        soft_wrap=True,
    )
    _print_runs(comparison)
    for notice in comparison.notices:
        console.print(Text(notice), soft_wrap=True)
    _print_pairs(comparison)
    _print_differing(comparison)
    if out is not None:
        click.echo(f"page: {_write_page(comparison, store, out)}")


def _reference(reference: str, suite: str | None) -> str:
    """Return SUITE/CANDIDATE[@RUN].

    Raises:
        InputError: no suite is named, or there is no such suite.
    """
    if suite is None:
        if "/" not in reference:
            raise InputError(
                f"expected SUITE/CANDIDATE[@RUN], got {reference!r}; name its suite by --suite"
            )
        return reference
    from bench.suites import suite_name

    return f"{suite_name(suite)}/{reference}"


def _print_runs(comparison: RunComparison) -> None:
    table = table_of("run", "protocol", "images of the run", "clean", "robust")
    accuracies = zip(comparison.clean_accuracies, comparison.robust_accuracies, strict=True)
    for run, shares in zip(comparison.runs, accuracies, strict=True):
        manifest = run.manifest
        row = [
            f"{manifest.suite}/{safe_name(manifest.candidate)}@{run.run}",
            protocol_text(manifest),
            selection(manifest.selection, manifest.dataset.size, run.n_examples),
            *(f"{percent(each)}%" for each in shares),
        ]
        table.add_row(*map(Text, row))
    table_console().print(table)


def _print_pairs(comparison: RunComparison) -> None:
    several = len(comparison.pairs) > 1
    columns = ["A", "B", "survive for both", "only A", "only B", "neither"]
    columns += ["A - B, points", "95% interval", "McNemar p"]
    columns += ["p, adjusted"] if several else []
    table = table_of(*columns)
    for pair in comparison.pairs:
        counts = pair.counts
        low, high = counts.interval()
        row = [
            comparison.names[pair.first],
            comparison.names[pair.second],
            *(f"{each:,}" for each in (counts.both, counts.only_first)),
            *(f"{each:,}" for each in (counts.only_second, counts.neither)),
            points(counts.difference),
            f"{points(low)} to {points(high)}",
            f"{counts.p_value:.3g}",
        ]
        table.add_row(*map(Text, row + ([f"{pair.adjusted_p_value:.3g}"] if several else [])))
    table_console().print(table)


def _print_differing(comparison: RunComparison) -> None:
    number = len(comparison.differing_index)
    if not number:
        click.echo("no sample on which they differ")
        return
    shown = comparison.differing(SHOWN)
    which = "all" if len(shown) == number else f"{len(shown)} of them"
    click.echo(f"{number:,} samples on which they differ, {which}:")
    table = table_of("sample", "label", *comparison.names)
    for sample in shown:
        falls = ("survives" if fall is None else str(fall) for fall in sample.falls)
        table.add_row(str(sample.index), str(sample.label), *map(Text, falls))
    table_console().print(table)


def _write_page(comparison: RunComparison, store: Store, out: Path) -> Path:
    from bench.pages.comparison_page import render_alone  # matplotlib: slow to import

    text = render_alone(comparison, store, out.name)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write(out, text.encode("utf-8", errors="replace"))
    except OSError as error:
        raise InputError(
            f"{out}: the page cannot be written: {error.strerror}; choose another file"
        ) from error
    return out
