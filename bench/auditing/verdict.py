"""What came of a claim that an audit tests."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from bench.auditing.claims import Claim
from bench.formatting import percent

Outcome = Literal["refuted", "consistent", "not decided"]


class Verdict(BaseModel):
    """What came of one claim; accuracies are fractions.

    Attributes:
        measured: the estimate; None: nothing was measured.
        low, high: bounds, each of which fails with probability `level` at most; for a robust
            accuracy of what the audit's attacks leave.
        exact: whether no sampling is involved.
        n: images that the numbers rest on.
        more: how many further images would be expected to decide; None: it is decided, or no
            number of them would.
        more_seconds: their price at the rate of this audit.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    name: str
    title: str
    claimed: float
    outcome: Outcome
    measured: float | None = None
    low: float | None = None
    high: float | None = None
    exact: bool = False
    n: int = 0
    population: int = 0
    level: float
    reason: str
    more: int | None = None
    more_seconds: float | None = None


def bounds_text(verdict: Verdict) -> str:
    """Return the bounds of a verdict in percent."""
    if verdict.high is None:
        return "–"
    if verdict.low is None:
        return f"at most {percent(verdict.high)}"
    return f"{percent(verdict.low)} – {percent(verdict.high)}"


def said(claim: Claim, level: float) -> dict[str, Any]:
    """Return what a verdict says of its claim and of the false alarm of the test."""
    return {
        "name": claim.name,
        "title": claim.title,
        "claimed": claim.accuracy,
        "level": level,
    }


def draws_needed(missing: float, spread: float, gap: float, population: int) -> float:
    """Return how many draws are expected to gain `missing`, in the logarithm of the capital.

    A bettor with the best stake gains gap^2 / (2 spread) a draw, and more as a population is used
    up. Without a gap, all that are left.
    """
    needed = 2 * max(missing, 0.0) * max(spread, 1e-4) / max(gap, 1e-6) ** 2
    return needed / (1 + needed / max(population, 1))
