"""`bench view`: the pages in a browser, while runs go on."""

from __future__ import annotations

import contextlib
import signal
from pathlib import Path

import click

from bench.cli import options
from bench.store import Store


@click.command("view")
@options.results_dir
@click.option(
    "--address",
    default="127.0.0.1",
    show_default=True,
    help="What to listen on; anything but loopback lets other machines read the results.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8765,
    show_default=True,
    help="0 picks a free one.",
)
@click.option(
    "--every",
    type=options.FiniteRange(0.2),
    default=5.0,
    show_default=True,
    help="Seconds between two looks for finished runs.",
)
@click.option("--open", "opens", is_flag=True, help="Open the page in a browser.")
def command(results_dir: Path, address: str, port: int, every: float, opens: bool) -> None:
    """Serve the pages until Ctrl-C: progress of running evaluations, and the leaderboard.

    It reads the records only; runs may begin, go on and end meanwhile.
    """
    from bench.view.server import View  # matplotlib: slow to import

    # A service that is ended by its manager removes its temporary pages, too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    view = View(Store(results_dir), address, port, every)
    try:
        click.echo(f"view: {view.url} (Ctrl-C stops it)")
        if opens:
            click.launch(view.url)
        with contextlib.suppress(KeyboardInterrupt):
            view.serve()
        click.echo("stopped")
    finally:
        view.server_close()
