"""The page of a suite."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import jinja2

from bench.pages.addresses import suite_page
from bench.pages.attack_plot import attack_plot
from bench.pages.certified import certified_board
from bench.pages.certified_plot import certified_plot, envelope_plot
from bench.pages.eps_curve_plot import curves_of, eps_curve_plot
from bench.pages.leaderboard import Leaderboard
from bench.pages.marks import mark
from bench.pages.mix_figures import mix_figures
from bench.pages.repeated import repeated_trainings
from bench.pages.rows import families, leaderboard_rows
from bench.pages.site import Page
from bench.pages.svg import for_both_widths
from bench.pages.tradeoff_plot import tradeoff_plot
from bench.store import Store


def suite_pages(
    environment: jinja2.Environment, store: Store, board: Leaderboard
) -> Iterator[Page]:
    """Yield the page of a suite."""
    address = suite_page(board.suite)
    made_from = mark(board, [run for run in store.runs(board.suite) if run.is_complete])
    yield Page(address, partial(_render, environment, store, board, address, made_from), made_from)


def _render(
    environment: jinja2.Environment,
    store: Store,
    board: Leaderboard,
    address: str,
    made_from: str,
) -> str:
    certified = certified_board(store, board.suite, board.threat_model.eps)
    rows = leaderboard_rows(board, certified)
    mixes = mix_figures(store, board.suite)
    sweeps = [
        run
        for figures in mixes
        for run in figures.family.sweeps
        if run.sweep and run.manifest.threat_model == board.threat_model
    ]
    attacked = [*board.ranked] or [*board.partial, *board.express]
    return environment.get_template("suite.html.jinja").render(
        address=address,
        mark=made_from,
        board=board,
        rows=rows,
        families=families(rows),
        tradeoff=for_both_widths(partial(tradeoff_plot, board.suite, rows, sweeps), "tradeoff")
        if rows or sweeps
        else None,
        attacked=attacked,
        attacks=for_both_widths(partial(attack_plot, attacked), "attacks") if attacked else None,
        eps_curves=for_both_widths(
            partial(
                eps_curve_plot,
                curves_of(store, (entry.summary for entry in attacked)),
                board.threat_model.eps,
                board.threat_model.norm,
            ),
            "eps-curves",
        ),
        certified=certified,
        repeated=repeated_trainings(certified.entries) if certified else [],
        certified_curves=for_both_widths(partial(certified_plot, certified), "certified-curves")
        if certified
        else None,
        envelopes=for_both_widths(partial(envelope_plot, certified), "certified-envelopes")
        if certified
        else None,
        mixes=mixes,
    )
