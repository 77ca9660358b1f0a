"""The leaderboards of a store: what pages and exported tables show."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence

from bench.errors import InputError
from bench.pages.groups import with_groups
from bench.pages.leaderboard import Leaderboard, make_leaderboard
from bench.store import RunFolder, Store, safe_name
from bench.store.best_known import BestKnown, best_known
from bench.store.summary import AttackedSummary, Summary
from bench.suites import Suite, load_suite, suite_name, suite_names

_logger = logging.getLogger(__name__)


def leaderboards(store: Store) -> list[Leaderboard]:
    """Return the leaderboard of each suite with complete runs, by name.

    A run that cannot be read is left out, logged, and listed among the notices.
    """
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


def _best_known(
    store: Store, runs: Sequence[Summary], everything: Sequence[Summary]
) -> dict[str, BestKnown]:
    """Return the best-known accuracy of each run, by run; damaged runs are left out."""
    found = {}
    for run in runs:
        if isinstance(run, AttackedSummary):
            with contextlib.suppress(InputError):
                found[run.run] = best_known(store, run, everything)
    return found


def _notice(store: Store, folder: RunFolder, error: InputError) -> str:
    # Readers of the page need not know where the store lies on this disk.
    return str(error).replace(str(folder.path), str(folder.path.relative_to(store.root)))


def _definition(suite: str) -> Suite | None:
    return load_suite(suite) if suite in suite_names() else None


def leaderboard_of(store: Store, suite: str) -> Leaderboard:
    """Return a suite's leaderboard, as its page shows it.

    Raises:
        InputError: there is no complete run of the suite.
    """
    boards = leaderboards(store)
    for board in boards:
        if board.suite == suite_name(suite):
            return board
    known = ", ".join(board.suite for board in boards) or "(none)"
    raise InputError(f"suite {suite!r}: no complete run in {store.root}, expected one of {known}")
