"""Tables in the terminal, in files and in logs."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

WIDTH = 160
"""Width of tables in files and logs, which have no terminal width."""


def table_console() -> Console:
    """Return the console that tables are printed on."""
    console = Console()
    return console if console.is_terminal else Console(width=WIDTH)


def table_of(*columns: str) -> Table:
    """Return a table that wraps the text of its cells instead of cutting it."""
    table = Table()
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
