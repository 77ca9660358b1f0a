"""Whether a claim of robust accuracy is borne out: breaks can refute it, nothing can prove it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bench.auditing.claims import Claim
from bench.auditing.undecided import Undecided
from bench.auditing.verdict import Verdict, draws_needed, said
from bench.claims.verdict import ATTACK_SPREAD, PRINTED_ROUNDING
from bench.formatting import count, percent
from bench.statistics.betting import Round, anytime_bounds, capital, unexplained

MARGIN = 0.02
"""A claim is consistent with accuracies down to so much below it, a fraction: two points."""
EARLY = 0.005
"""While rounds go on, a claim counts as consistent only with so much to spare: what more passes
would break is known at the end."""

LEARNING = 1.0
"""What not knowing the best stake costs, in the logarithm of the capital."""


def least_count(claim: Claim, size: int) -> int:
    """Return the least number of test images that bears a claim of robust accuracy out.

    Rounding in print and the spread of an attack from seed to seed, at least one image, are in its
    favour.
    """
    spread = max(ATTACK_SPREAD * size, 1.0)
    return max(math.ceil((claim.accuracy - PRINTED_ROUNDING) * size - spread - 1e-9), 0)


def robust_verdict(
    claim: Claim,
    left: Undecided,
    rounds: Sequence[Round],
    level: float,
    *,
    more_breaks: float | None = 0.0,
    seconds: float = 0.0,
    misled: Sequence[str] = (),
    margin: float = MARGIN,
) -> Verdict:
    """Return what came of a claim of robust accuracy.

    Args:
        claim: the claim.
        left: the images that may be robust.
        rounds: what attacks did to some of them, drawn at random.
        level: false alarm of the test.
        more_breaks: upper bound of the share of all images that more passes would break; None:
            unknown.
        seconds: what the rounds took.
        misled: names of flags under which what survives says nothing.
        margin: how far below the claim the accuracy may be for it to be consistent.
    """
    common = {**said(claim, level), "population": left.size}
    if reason := _impossible(claim, left):
        return Verdict(
            **common,
            outcome="refuted",
            high=len(left.indices) / left.size,
            exact=True,
            n=left.size,
            reason=reason,
        )
    if not any(len(each.units) for each in rounds):
        return Verdict(**common, outcome="not decided", reason="no image was attacked")
    seen = _attacked(claim, left, rounds, level)
    numbers = {
        **common,
        "measured": seen.measured,
        "low": seen.low,
        "high": seen.high,
        "n": seen.drawn,
        "exact": seen.is_all or seen.leaves_no_room,
    }
    if reason := _refuted(seen, level):
        return Verdict(**numbers, outcome="refuted", reason=f"{seen.text}: {reason}")
    if misled:
        reason = f"that others survive says nothing, since {', '.join(misled)} was flagged"
        return Verdict(**numbers, outcome="not decided", reason=f"{seen.text}; {reason}")
    if more_breaks is not None and seen.low - more_breaks >= claim.accuracy - margin:
        return Verdict(
            **numbers,
            outcome="consistent",
            reason=f"{seen.text}: these attacks leave at least "
            f"{percent(seen.low - more_breaks)}%, less than {100 * margin:g} points below the "
            "claim or above it; other attacks may break more",
        )
    more = _further_draws(claim, seen, level, claim.accuracy - margin + (more_breaks or 0.0))
    never = "; no number of images would decide at the rate that was seen"
    return Verdict(
        **numbers,
        outcome="not decided",
        reason=seen.text + ("" if more is not None else never),
        more=more,
        more_seconds=None if more is None else more * seconds / seen.drawn,
    )


@dataclass(frozen=True)
class _Attacked:
    """What attacks did to images drawn at random.

    Attributes:
        population: images that may be robust.
        drawn: how many of them were attacked.
        measured, low, high: the share of all test images that survives, and its bounds.
        log_capital: of the bettor against the claim, at the end and at its highest.
        spread: variance of a draw, as a share of all test images.
        text: what broke.
    """

    population: int
    drawn: int
    measured: float
    low: float
    high: float
    log_capital: float
    highest_log_capital: float
    spread: float
    text: str

    @property
    def is_all(self) -> bool:
        """Whether every image that may be robust was attacked."""
        return self.drawn == self.population

    @property
    def leaves_no_room(self) -> bool:
        """Whether too many are broken for the claim, whatever the others are."""
        return self.log_capital == math.inf


def _attacked(claim: Claim, left: Undecided, rounds: Sequence[Round], level: float) -> _Attacked:
    population, size = len(left.indices), left.size
    drawn = sum(len(each.units) for each in rounds)
    standing = sum(int(each.ones.sum()) for each in rounds)
    needed = least_count(claim, size)
    money = capital(needed, population, rounds, left.scores, level=level)
    low, high = anytime_bounds(population, rounds, left.scores, level=level)
    broken = f"{count(drawn - standing)} of {count(drawn)} images"
    return _Attacked(
        population=population,
        drawn=drawn,
        measured=standing / drawn * population / size,
        low=low / size,
        high=high / size,
        log_capital=float(money[-1]),
        highest_log_capital=float(money.max()),
        spread=unexplained(population, rounds, left.scores) * (population / size) ** 2,
        text=f"{broken} were wrong without attack or broken"
        if left.scores is None
        else f"{broken} that were right without attack were broken",
    )


def _impossible(claim: Claim, left: Undecided) -> str:
    """Return why the claim cannot hold, whatever attacks do; empty: it can."""
    size, population = left.size, len(left.indices)
    if least_count(claim, size) <= population:
        return ""
    return (
        f"at least {count(size - population)} of {count(size)} test images are wrong without "
        f"attack or have a confirmed witness, so at most {percent(population / size)}% can be "
        "robust, whatever is sampled"
    )


def _refuted(seen: _Attacked, level: float) -> str:
    """Return why the claim is refuted; empty: it is not."""
    if seen.leaves_no_room:
        return "whatever the others are, fewer survive than are claimed"
    if seen.highest_log_capital >= math.log(1 / level):
        return (
            "were the claim true, so many would break with probability at most "
            f"{level:.3g}, whenever one looks"
        )
    return ""


def _further_draws(claim: Claim, seen: _Attacked, level: float, enough: float) -> int | None:
    """Return how many further images would be expected to decide; None: no number would.

    Args:
        claim: the claim.
        seen: what attacks did so far.
        level: false alarm of the test.
        enough: the share left by these attacks from which on the claim is consistent.
    """
    if seen.is_all:
        return None
    to_win = math.log(1 / level) + LEARNING
    below, above = claim.accuracy - seen.measured, seen.measured - enough
    to_refute = draws_needed(
        to_win - seen.log_capital, seen.spread, below, seen.population - seen.drawn
    )
    to_support = draws_needed(to_win, seen.spread, above, seen.population) - seen.drawn
    waits = ((to_refute, below), (to_support, above))
    possible = [max(each, 1) for each, gap in waits if gap > 1e-3]
    return math.ceil(min(possible)) if possible else None
