"""Whether a claim of clean accuracy is borne out, which is two-sided."""

from __future__ import annotations

import math
from typing import Any

from bench.auditing.claims import Claim
from bench.auditing.records import Clean
from bench.auditing.verdict import Outcome, Verdict, draws_needed, said
from bench.claims.verdict import CLEAN_SPREAD, PRINTED_ROUNDING
from bench.formatting import count, percent
from bench.statistics import anytime_interval

CLEAN_MARGIN = 0.02
"""A clean accuracy that was measured on a part must be known to so much on either side."""


def clean_verdict(claim: Claim, clean: Clean | None, level: float, varies: bool) -> Verdict:
    """Return what came of a claim of clean accuracy, which is two-sided."""
    common: dict[str, Any] = said(claim, level)
    if clean is None or not clean.indices:
        return Verdict(**common, outcome="not decided", reason="nothing was measured")
    n, right = len(clean.indices), sum(clean.right)
    measured = right / n
    tolerance = max(CLEAN_SPREAD, 1 / clean.population) + PRINTED_ROUNDING
    difference = abs(measured - claim.accuracy)
    numbers = {**common, "measured": measured, "n": n, "population": clean.population}
    if clean.is_whole and not varies:
        outcome: Outcome = "refuted" if difference > tolerance + 1e-12 else "consistent"
        text = (
            f"measured on all {count(n)} test images: {percent(measured)}%, "
            f"{100 * difference:.2f} points from the claim"
        )
        return Verdict(
            **numbers, outcome=outcome, low=measured, high=measured, exact=True, reason=text
        )
    bounds = anytime_interval(right, n, clean.population, 1 - level)
    if varies:  # one pass over a candidate whose answers vary is itself a draw
        bounds = bounds.model_copy(update={"kind": "binomial"})
    outside = not bounds.low - tolerance <= claim.accuracy <= bounds.high + tolerance
    narrow = (
        bounds.low >= claim.accuracy - CLEAN_MARGIN and bounds.high <= claim.accuracy + CLEAN_MARGIN
    )
    outcome = "refuted" if outside else "consistent" if narrow else "not decided"
    text = f"measured on {count(n)} of {count(clean.population)} test images"
    more = None
    if outcome == "not decided":
        gap = max(abs(claim.accuracy - measured), CLEAN_MARGIN - difference, 0.002)
        needed = draws_needed(math.log(2 / level), measured * (1 - measured), gap, clean.population)
        more = max(math.ceil(needed) - n, 1)
    return Verdict(
        **numbers,
        outcome=outcome,
        low=bounds.low,
        high=bounds.high,
        reason=text,
        more=more,
        more_seconds=None if more is None else more * clean.seconds / n,
    )
