"""The index: one card a suite."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import jinja2
from markupsafe import Markup

from bench.pages.addresses import INDEX
from bench.pages.certified import certified_board
from bench.pages.leaderboard import Leaderboard
from bench.pages.rows import Row, leaderboard_rows
from bench.pages.site import Page
from bench.pages.tradeoff_plot import thumbnail
from bench.store import Store
from bench.suites import load_suite, suite_names


@dataclass(frozen=True)
class Card:
    """What the index says of a suite.

    Attributes:
        rows: of its leaderboard.
        thumbnail: the trade-off, small; None: there is nothing to draw.
        is_written: whether the site has the suite's page.
    """

    board: Leaderboard
    rows: tuple[Row, ...]
    thumbnail: Markup | None
    is_written: bool

    @property
    def measured(self) -> list[Row]:
        """The measured rows; the full runs come first."""
        rows = [row for row in self.rows if row.kind != "published"]
        return sorted(rows, key=lambda row: row.kind != "full")

    @property
    def counts(self) -> Iterator[tuple[int, str]]:
        """How many runs of each kind there are, and published models."""
        kinds = [row.kind for row in self.rows]
        full = kinds.count("full")
        if full:
            yield full, "full runs" if full > 1 else "full run"
        for kind in ("partial", "express"):
            if kind in kinds:
                yield kinds.count(kind), kind
        if self.board.certified:
            yield self.board.certified, "certified"
        others = len(self.board.otherwise) + len(self.board.unsectioned)
        if others:
            yield others, "other"
        if self.board.published:
            yield len(self.board.published), "published"


def index_page(
    environment: jinja2.Environment,
    store: Store,
    boards: Sequence[Leaderboard],
    written: set[str],
) -> Page:
    """Return the index.

    Args:
        written: names of the suites whose page the site has.
    """
    return Page(INDEX, partial(_render, environment, store, boards, written))


def _render(
    environment: jinja2.Environment,
    store: Store,
    boards: Sequence[Leaderboard],
    written: set[str],
) -> str:
    cards = [
        _card(store, board, board.suite in written, f"card-{number}")
        for number, board in enumerate(boards)
    ]
    known = {board.suite for board in boards}
    unrun = [load_suite(name) for name in suite_names() if name not in known]
    template = environment.get_template("index.html.jinja")
    return template.render(address=INDEX, cards=cards, unrun=unrun)


def _card(store: Store, board: Leaderboard, is_written: bool, identifier: str) -> Card:
    certified = certified_board(store, board.suite, board.threat_model.eps)
    rows = leaderboard_rows(board, certified)
    drawn = thumbnail(rows, identifier) if rows else None
    return Card(board, tuple(rows), drawn, is_written)
