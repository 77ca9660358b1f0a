"""Flags on errors that the candidate raised: on samples of a run, and in the full checks."""

from __future__ import annotations

import re

from bench.store.records import FAILED
from bench.store.summary import Flag, Summary
from bench.store.tables import Tables

FAILED_SAMPLES = "failed-samples"
FAILED_CHECKS = "failed-checks"
MOST_NAMED = 20
"""Samples that the flag names; the table of attempts has all of them."""
_KEY = re.compile(r"failed on sample (\d+)")
"""A key in an engine's record, whose value is the error."""


def failed_samples(summary: Summary, tables: Tables) -> Flag | None:
    """Return the flag on samples on which the candidate raised an error, if there are any."""
    errors = _errors(summary)
    failed = failed_indices(summary, tables)
    if not failed:
        return None
    first = next((errors[index] for index in failed if index in errors), "")
    names = ", ".join(map(str, failed[:MOST_NAMED]))
    more = f" and {len(failed) - MOST_NAMED} more" if len(failed) > MOST_NAMED else ""
    return Flag(
        name=FAILED_SAMPLES,
        measured=f"{len(failed)} of {summary.n_examples} samples: {names}{more}",
        threshold="none",
        meaning="The candidate raised an error on these samples, which count as not robust"
        + (f"; the first: {first}." if first else "."),
        advice="Find the error and repair the candidate; its accuracies are lower bounds of what "
        "it would reach without the error.",
    )


def failed_checks(error: str) -> Flag:
    """Return the flag on checks of `--flags full` that an error of the candidate ended."""
    return Flag(
        name=FAILED_CHECKS,
        measured=error,
        threshold="none",
        meaning="The candidate raised this error on an image of the full checks, such as a clean "
        "one with noise on it, and it ended them: what they would have found is not known.",
        advice="Find the error and repair the candidate.",
    )


def failed_indices(summary: Summary, tables: Tables) -> list[int]:
    """Return the samples on which the candidate raised an error, ascending."""
    recorded: list[int] = []
    if "outcome" in tables.attempts:  # other kinds of runs may have none
        outcomes = tables.attempts["outcome"]
        recorded = tables.attempts.loc[outcomes == FAILED, "index"].tolist()
    return sorted({*_errors(summary), *recorded})


def _errors(summary: Summary) -> dict[int, str]:
    """Return the errors that the engine's record holds, by sample."""
    return {
        int(found[1]): str(text)
        for key, text in summary.engine_record.items()
        if (found := _KEY.fullmatch(key))
    }


def has_failures(summary: Summary) -> bool:
    """Return whether a run's candidate raised an error on some samples."""
    return any(flag.name == FAILED_SAMPLES for flag in summary.flags)
