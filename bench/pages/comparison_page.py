"""The pages that compare candidates on the samples of both."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from functools import partial

import jinja2

from bench.errors import InputError
from bench.pages.addresses import comparison_page
from bench.pages.compared_pairs import compared_pairs
from bench.pages.comparison import RunComparison, compare_runs
from bench.pages.comparison_pictures import comparison_pictures, read_galleries
from bench.pages.comparison_plot import comparison_plot
from bench.pages.leaderboard import Leaderboard
from bench.pages.marks import mark
from bench.pages.site import Page, site_environment
from bench.store import Store
from bench.store.manifest import Manifest
from bench.store.summary import CertifiedSummary, Summary

MOST_ROWS = 200
"""Differing samples on a page."""

_logger = logging.getLogger(__name__)


def comparison_pages(
    environment: jinja2.Environment, store: Store, board: Leaderboard
) -> Iterator[Page]:
    """Yield a page for each pair of `compared_pairs`.

    Where a pair cannot be compared after all, such as for a damaged table, its page says why.
    """
    for pair in compared_pairs(board):
        address = comparison_page(board.suite, [run.manifest.candidate for run in pair])
        made_from = mark((pair, board.title), [store.folder(run.manifest) for run in pair])
        render = partial(_render_pair, environment, store, board, pair, address, made_from)
        yield Page(address, render, made_from)


def _render_pair(
    environment: jinja2.Environment,
    store: Store,
    board: Leaderboard,
    pair: Sequence[Summary],
    address: str,
    made_from: str,
) -> str:
    try:
        comparison = compare_runs(store, pair)
    except InputError as error:
        _logger.warning("not compared: %s", error)
        return environment.get_template("comparison_refused.html.jinja").render(
            address=address,
            mark=made_from,
            board=board,
            runs=pair,
            reason=str(error).replace(str(store.root), ""),
        )
    return _render(environment, comparison, store, address, board, made_from)


def render_alone(comparison: RunComparison, store: Store, name: str) -> str:
    """Return the text of a page that belongs to no site and links to no other page.

    Args:
        name: the name of its file.
    """
    return _render(site_environment(), comparison, store, name, None)


def _render(
    environment: jinja2.Environment,
    comparison: RunComparison,
    store: Store,
    address: str,
    board: Leaderboard | None,
    made_from: str = "",
) -> str:
    galleries = read_galleries(store, comparison)
    pictured = {index for gallery in galleries.values() for index in gallery.index.tolist()}
    differing = comparison.differing(MOST_ROWS, pictured)
    alone = {"index": "#main"} if board is None else {}
    classes = (name for run in comparison.runs if (name := _classes(run.manifest)))
    return environment.get_template("comparison.html.jinja").render(
        address=address,
        mark=made_from,
        comparison=comparison,
        board=board,
        suite=comparison.runs[0].manifest.suite,
        curves=comparison_plot(comparison, "curves"),
        differing=differing,
        pictures=comparison_pictures(galleries, differing),
        classes=dict(enumerate(next(classes, ()))),
        certified=[isinstance(run, CertifiedSummary) for run in comparison.runs],
        **alone,
    )


def _classes(manifest: Manifest) -> Sequence[str]:
    """Return the names of the classes, as far as they are recorded."""
    return manifest.dataset.classes or manifest.information.get("classes") or ()
