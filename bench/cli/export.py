"""`bench export`: results for RobustBench and for papers."""

from __future__ import annotations

from pathlib import Path

import click

from bench.cli import options
from bench.errors import InputError
from bench.export import TABLES, leaderboard_rows, write_submission
from bench.export.robustbench import Details
from bench.formatting import count
from bench.pages.boards import leaderboard_of
from bench.store import Store
from bench.store.best_known import best_known
from bench.store.files import write
from bench.store.summary import AttackedSummary


@click.group("export")
def command() -> None:
    """Write results in other formats: RobustBench's files, tables for papers."""


@command.command("robustbench")
@click.argument("reference", metavar="SUITE/CANDIDATE[@RUN]")
@options.results_dir
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Folder to write model_info/ and the form to.",
)
@click.option(
    "--id", "identifier", default="", help="The model's id. Default: the candidate's name."
)
@click.option("--authors", default="", help="Authors of the paper. Default: the candidate's own.")
@click.option("--forward-passes", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--checkpoint", default="", help="Address of the weights and the code.")
def robustbench(
    reference: str,
    results_dir: Path,
    out: Path,
    identifier: str,
    authors: str,
    forward_passes: int,
    checkpoint: str,
) -> None:
    """Write a run as RobustBench's model_info file and its form for a new model."""
    store = Store(results_dir)
    summary = store.summary(reference, lambda kind: kind.is_ranked)
    if not isinstance(summary, AttackedSummary):
        raise InputError(
            f"expected a run of standard AutoAttack, got a {summary.kind.name}; name another "
            "run by @RUN, see `bench show`"
        )
    details = Details(identifier, authors, forward_passes, checkpoint)
    for path in write_submission(summary, best_known(store, summary), details, out):
        click.echo(path)


def _table(style: str) -> click.Command:
    @click.command(style, help=f"A suite's leaderboard as {style}, for a paper.")
    @options.suite(required=True)
    @options.results_dir
    @click.option(
        "--out",
        type=click.Path(dir_okay=False, path_type=Path),
        help="The file to write. Default: the terminal.",
    )
    def table(suite_name: str, results_dir: Path, out: Path | None) -> None:
        board = leaderboard_of(Store(results_dir), suite_name)
        rows = leaderboard_rows(board)
        n = board.ranked[0].summary.n_examples
        caption = f"{board.title}: accuracies in % on {count(n)} test images."
        text = TABLES[style](rows, caption)
        if out is None:
            click.echo(text, nl=False)
            return
        try:
            write(out, text.encode())
        except OSError as error:
            raise InputError(f"--out: {out} cannot be written: {error.strerror}") from error
        click.echo(out)

    return table


for _style in TABLES:
    command.add_command(_table(_style))
