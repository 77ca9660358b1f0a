"""The pages that compare candidates on the samples of both."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Sequence

import jinja2

from bench.errors import InputError
from bench.pages.addresses import comparison_page
from bench.pages.comparison import RunComparison, compare_runs
from bench.pages.comparison_pictures import comparison_pictures, read_galleries
from bench.pages.comparison_plot import comparison_plot
from bench.pages.leaderboard import Leaderboard
from bench.pages.site import Page, site_environment
from bench.store import Store
from bench.store.manifest import Manifest
from bench.store.summary import CertifiedSummary, Summary

BEST = 8
"""Each two of the best so many candidates have a page: at most 28 pages. The other pages compare a
mix with its bases, so that their number grows with the candidates, not with its square."""
BEST_CERTIFIED = 4
"""The same of certified classifiers, by average certified radius."""
MOST_ROWS = 200
"""Differing samples on a page."""

_logger = logging.getLogger(__name__)


def comparison_pages(
    environment: jinja2.Environment, store: Store, board: Leaderboard
) -> Iterator[Page]:
    """Yield the address and the text of a page for each pair of `compared_pairs`.

    Pairs without a shared sample, or with a damaged table, have no page.
    """
    written = set()
    for pair in compared_pairs(board):
        address = comparison_page(board.suite, [run.manifest.candidate for run in pair])
        if address in written:
            continue
        try:
            comparison = compare_runs(store, pair)
        except InputError as error:
            _logger.info("no page compares them: %s", error)
            continue
        written.add(address)
        yield address, _render(environment, comparison, store, address, board)


def compared_pairs(board: Leaderboard) -> list[tuple[Summary, Summary]]:
    """Return the pairs of runs of different candidates that have a page, each once.

    They are all pairs among the `BEST` ranked candidates, those among the best certified ones, and
    each ranked mix with each of its bases.
    """
    ranked: list[Summary] = [entry.summary for entry in board.ranked]
    certified = _best_certified(board.others)
    newest = {run.manifest.candidate: run for run in ranked}
    pairs = [
        *itertools.combinations(ranked[:BEST], 2),
        *itertools.combinations(certified, 2),
        *((mix, newest[base]) for mix in ranked for base in _bases(mix) if base in newest),
    ]
    unique = {
        frozenset((one.run, two.run)): (one, two)
        for one, two in reversed(pairs)
        if one.manifest.candidate != two.manifest.candidate
    }
    return list(reversed(unique.values()))


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
) -> str:
    galleries = read_galleries(store, comparison)
    pictured = {index for gallery in galleries.values() for index in gallery.index.tolist()}
    differing = comparison.differing(MOST_ROWS, pictured)
    alone = {"index": "#main"} if board is None else {}
    classes = (name for run in comparison.runs if (name := _classes(run.manifest)))
    return environment.get_template("comparison.html.jinja").render(
        address=address,
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


def _best_certified(runs: Sequence[Summary]) -> list[Summary]:
    """Return the best certifications, one a candidate: by average certified radius."""
    found: dict[str, CertifiedSummary] = {}
    for run in sorted(runs, key=lambda each: each.finished):
        if isinstance(run, CertifiedSummary) and not run.is_variant:
            found[run.manifest.candidate] = run
    best = sorted(found.values(), key=lambda run: -run.certified.average_certified_radius)
    return list(best[:BEST_CERTIFIED])


def _bases(mix: Summary) -> list[str]:
    recorded = mix.manifest.information.get("mix")
    if not isinstance(recorded, dict):
        return []
    names = (recorded.get("accurate"), recorded.get("robust"))
    return [name for name in names if isinstance(name, str)]
