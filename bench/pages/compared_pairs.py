"""Which candidates of a suite have a page that compares them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from bench.pages.leaderboard import Leaderboard
from bench.store.summary import CertifiedSummary, Summary

BEST = 8
"""Each two of the best so many candidates have a page: at most 28 pages. The other pages compare a
mix with its bases, so that their number grows with the candidates, not with its square."""
BEST_CERTIFIED = 4
"""The same of certified classifiers, by average certified radius."""


def compared_pairs(board: Leaderboard, candidate: str = "") -> list[tuple[Summary, Summary]]:
    """Return the pairs of runs that have a page, one for each two candidates.

    They are all pairs among the `BEST` ranked candidates, those among the best certified ones, and
    each ranked mix with each of its bases; certifications of other samples make no pair.

    Args:
        candidate: only pairs with it; empty: all.
    """
    ranked: list[Summary] = [entry.summary for entry in board.ranked]
    newest = {run.manifest.candidate: run for run in ranked}
    pairs = [
        *itertools.combinations(ranked[:BEST], 2),
        *((mix, newest[base]) for mix in ranked for base in _bases(mix) if base in newest),
        *itertools.combinations(_best_certified(board.others), 2),
    ]
    found: dict[frozenset[str], tuple[Summary, Summary]] = {}
    for one, two in pairs:
        names = frozenset((one.manifest.candidate, two.manifest.candidate))
        if len(names) == 2 and _same_samples(one, two) and (not candidate or candidate in names):
            found.setdefault(names, (one, two))
    return list(found.values())


def _same_samples(one: Summary, two: Summary) -> bool:
    first, second = one.manifest, two.manifest
    return (first.dataset.name, first.threat_model, first.selection) == (
        second.dataset.name,
        second.threat_model,
        second.selection,
    )


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
