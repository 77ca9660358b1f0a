"""The page of a suite."""

from __future__ import annotations

from collections.abc import Iterator

import jinja2

from bench.pages.addresses import suite_page
from bench.pages.attack_plot import attack_plot
from bench.pages.certified import certified_board
from bench.pages.certified_plot import certified_plot, envelope_plot
from bench.pages.leaderboard import Leaderboard
from bench.pages.mix_figures import mix_figures
from bench.pages.repeated import repeated_trainings
from bench.pages.site import Page
from bench.pages.tradeoff_plot import tradeoff_plot
from bench.store import Store


def suite_pages(
    environment: jinja2.Environment, store: Store, board: Leaderboard
) -> Iterator[Page]:
    """Yield the page of a suite."""
    ranked = board.ranked
    tradeoff = attacks = None
    if ranked:
        tradeoff = tradeoff_plot(ranked, board.published, "tradeoff")
        attacks = attack_plot(ranked, board.attacks, "attacks")
    certified = certified_board(store, board.suite, board.threat_model.eps)
    address = suite_page(board.suite)
    yield (
        address,
        environment.get_template("suite.html.jinja").render(
            address=address,
            board=board,
            tradeoff=tradeoff,
            attacks=attacks,
            certified=certified,
            repeated=repeated_trainings(certified.entries) if certified else [],
            certified_curves=certified_plot(certified, "certified-curves") if certified else None,
            envelopes=envelope_plot(certified, "certified-envelopes") if certified else None,
            mixes=mix_figures(store, board.suite),
        ),
    )
