"""The leaderboards of a store, one for each suite with complete runs."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence

from bench.errors import InputError
from bench.report.groups import with_groups
from bench.report.leaderboard import Leaderboard, make_leaderboard
from bench.store import RunFolder, Store, safe_name
from bench.store.best_known import BestKnown, best_known
from bench.store.summary import Summary
from bench.suites import Suite, load_suite, suite_name, suite_names

_logger = logging.getLogger(__name__)


def leaderboards(store: Store) -> list[Leaderboard]:
    """Return a leaderboard for each suite with complete runs, by name."""
    summaries: dict[str, list[Summary]] = {}
    notices: dict[str, list[str]] = {}
    for folder in store.runs():
        if not folder.is_complete:
            continue
        try:
            summary = folder.summary()
        except InputError as error:
            _logger.warning("left out of the report: %s", error)
            notices.setdefault(folder.path.parts[-3], []).append(_notice(store, folder, error))
        else:
            summaries.setdefault(summary.manifest.suite, []).append(summary)
    everything = [run for runs in summaries.values() for run in runs]
    return [
        with_groups(
            make_leaderboard(
                suite,
                sorted(runs, key=lambda run: run.finished),
                _definition(suite),
                notices.get(safe_name(suite), []),
                _best_known(store, runs, everything),
            ),
            store,
        )
        for suite, runs in sorted(summaries.items())
    ]


def leaderboard_of(store: Store, suite: str) -> Leaderboard:
    """Return a suite's leaderboard, as its page shows it.

    Raises:
        InputError: there is no complete run of the suite.
    """
    boards = leaderboards(store)
    for leaderboard in boards:
        if leaderboard.suite == suite_name(suite):
            return leaderboard
    known = ", ".join(leaderboard.suite for leaderboard in boards) or "(none)"
    raise InputError(f"suite {suite!r}: no complete run in {store.root}, expected one of {known}")


def _best_known(
    store: Store, runs: Sequence[Summary], everything: Sequence[Summary]
) -> dict[str, BestKnown]:
    """Return the best-known accuracy of each run, by run, except where its table is damaged."""
    found = {}
    for run in runs:
        if run.kind.is_ranked:
            with contextlib.suppress(InputError):
                found[run.run] = best_known(store, run, everything)
    return found


def _notice(store: Store, folder: RunFolder, error: InputError) -> str:
    # Readers of the page do not need the path of the store.
    return str(error).replace(str(folder.path), str(folder.path.relative_to(store.root)))


def _definition(suite: str) -> Suite | None:
    return load_suite(suite) if suite in suite_names() else None
