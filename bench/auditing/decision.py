"""Refuted, consistent or not decided: what an audit's records say of each claim.

A claim of robust accuracy c is read as "at least c of the test images stand every attack in the
ball". Attacks give an upper bound image by image: what they break is not robust, whatever else is
tried. So breaks can refute the claim, and nothing that stands can prove it.

* refuted: were the claim true, such a result would come up with probability at most the level, in
  all looks of the audit together (`bench.statistics.betting`); or the images that are known to
  be broken leave no room for it at all, which needs no probability;
* consistent: it is not refuted, and the accuracy under the audit's own attacks, less what more
  passes of them are expected to break (the upper bound of that), is with the same confidence at
  most `MARGIN` below the claim or above it, and no flag says that the attacks were misled;
* not decided: anything else, with the number of further images that would be expected to decide.

The false alarm of 5% is shared equally by the claims that are tested on a sample. A clean accuracy
that was measured on the whole test set is compared exactly and takes no share.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from bench.auditing.claims import Claim
from bench.auditing.records import Clean, Records
from bench.claims.verdict import ATTACK_SPREAD, CLEAN_SPREAD, PRINTED_ROUNDING
from bench.formatting import count, percent
from bench.statistics import anytime_interval
from bench.statistics.betting import Round, anytime_bounds, capital, unexplained

Outcome = Literal["refuted", "consistent", "not decided"]

LEVEL = 0.05
MARGIN = 0.02
"""A claim is consistent with accuracies down to so much below it, a fraction: two points."""
CLEAN_MARGIN = 0.02
"""A clean accuracy that was measured on a part must be known to so much on either side."""
EARLY = 0.005
"""While rounds go on, a claim counts as consistent only with so much to spare: what more passes
would break is known at the end."""

LEARNING = 1.0
"""What not knowing the best stake costs, in the logarithm of the capital."""

MISLED = frozenset(
    {
        "zero-gradients",
        "vanishing-gradients",
        "non-finite-gradients",
        "stopped-gradients",
        "gradient-error",
        "attacks-skipped",
        "square-beats-gradients",
        "larger-radius-survived",
        "more-iterations-break",
        "transfer-beats-white-box",
        "attack-power",
        "randomized",
        "training-mode",
        "batch-dependent",
        "chance-level-accuracy",
    }
)
"""Flags under which what stands says nothing."""


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


@dataclass(frozen=True)
class Undecided:
    """The test images about which attacks must say something, in numbers of this audit.

    Attributes:
        indices: (U,) in the data set: those that may be robust.
        scores: (U,) known of each in advance; None: nothing is.
        size: N, of the whole test set; the others are known not to be robust.
    """

    indices: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float64] | None
    size: int

    def rounds(
        self, sizes: Sequence[int], indices: Sequence[int], standing: Collection[int]
    ) -> list[Round]:
        """Return the draws of these images, round by round."""
        place = {index: unit for unit, index in enumerate(self.indices.tolist())}
        found, start = [], 0
        for size in sizes:
            part = [each for each in indices[start : start + size] if each in place]
            units = np.array([place[each] for each in part], dtype=np.int64)
            found.append(Round(units, np.array([each in standing for each in part], dtype=bool)))
            start += size
        return found


def undecided(size: int, clean: Clean | None, broken: Collection[int], varies: bool) -> Undecided:
    """Return which images may be robust, as far as is known before the attacks.

    Args:
        size: N, of the test set.
        clean: predictions without attack; an image that is wrong is not robust. Only predictions
            of the whole test set are used: they were made before any image was drawn.
        broken: indices that given witnesses break.
        varies: whether the candidate's answers vary, so that one wrong answer decides nothing.
    """
    known = set(broken)
    if clean is None or not clean.is_whole or varies:
        left = np.array([index for index in range(size) if index not in known], dtype=np.int64)
        return Undecided(left, None, size)
    rows = [
        row for row, index in enumerate(clean.indices) if clean.right[row] and index not in known
    ]
    return Undecided(
        np.array([clean.indices[row] for row in rows], dtype=np.int64),
        np.array([clean.margins[row] for row in rows], dtype=np.float64),
        size,
    )


def levels(claims: Sequence[Claim], clean_is_whole: bool) -> dict[str, float]:
    """Return the false alarm of each claim's test; they sum to `LEVEL` at most."""
    sampled = [each for each in claims if not (each.is_clean and clean_is_whole)]
    return {each.name: LEVEL / max(len(sampled), 1) for each in claims}


def least_count(claim: Claim, size: int) -> int:
    """Return the least number of test images that bears a claim of robust accuracy out.

    Rounding in print and the spread of an attack from seed to seed, at least one image, are in its
    favour.
    """
    spread = max(ATTACK_SPREAD * size, 1.0)
    return max(math.ceil((claim.accuracy - PRINTED_ROUNDING) * size - spread - 1e-9), 0)


def clean_verdict(claim: Claim, clean: Clean | None, level: float, varies: bool) -> Verdict:
    """Return what came of a claim of clean accuracy, which is two-sided."""
    common: dict[str, Any] = _said(claim, level)
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
        needed = _draws(math.log(2 / level), measured * (1 - measured), gap, clean.population)
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
        left: the images that may be robust.
        rounds: what attacks did to some of them, drawn at random.
        more_breaks: upper bound of the share of all images that more passes would break; None:
            unknown.
        seconds: what the rounds took.
        misled: names of flags under which what stands says nothing.
        margin: how far below the claim the accuracy may be for it to be consistent.
    """
    size, population = left.size, len(left.indices)
    needed = least_count(claim, size)
    common = {**_said(claim, level), "population": size}
    if needed > population:
        return Verdict(
            **common,
            outcome="refuted",
            high=population / size,
            exact=True,
            n=size,
            reason=f"at least {count(size - population)} of {count(size)} test images are wrong "
            f"without attack or have a confirmed witness, so at most "
            f"{percent(population / size)}% can be robust, whatever is sampled",
        )
    drawn = sum(len(each.units) for each in rounds)
    if not drawn:
        return Verdict(**common, outcome="not decided", reason="no image was attacked")
    standing = sum(int(each.ones.sum()) for each in rounds)
    money = capital(needed, population, rounds, left.scores, level=level)
    low, high = anytime_bounds(population, rounds, left.scores, level=level)
    refuted = bool((money >= math.log(1 / level)).any())
    numbers = {
        **common,
        "measured": standing / drawn * population / size,
        "low": low / size,
        "high": high / size,
        "n": drawn,
        "exact": drawn == population,
    }
    broken = f"{count(drawn - standing)} of {count(drawn)} images"
    text = (
        f"{broken} were wrong without attack or broken"
        if left.scores is None
        else f"{broken} that were right without attack were broken"
    )
    if refuted and math.isinf(float(money[-1])):
        return Verdict(
            **{**numbers, "exact": True},
            outcome="refuted",
            reason=f"{text}: whatever the others are, fewer stand than are claimed",
        )
    if refuted:
        return Verdict(
            **numbers,
            outcome="refuted",
            reason=f"{text}: were the claim true, so many would break with probability at most "
            f"{level:.3g}, whenever one looks",
        )
    least = low / size - (more_breaks or 0.0)
    if least >= claim.accuracy - margin and not misled and more_breaks is not None:
        return Verdict(
            **numbers,
            outcome="consistent",
            reason=f"{text}: these attacks leave at least {percent(least)}%, less than "
            f"{100 * MARGIN:g} points below the claim or above it; other attacks may break more",
        )
    if misled:
        return Verdict(
            **numbers,
            outcome="not decided",
            reason=f"{text}; that others stand says nothing, since {', '.join(misled)} was flagged",
        )
    spread = unexplained(population, rounds, left.scores) * (population / size) ** 2
    measured = standing / drawn * population / size
    down = claim.accuracy - measured
    up = measured - (more_breaks or 0.0) - (claim.accuracy - margin)
    waits = [
        _draws(math.log(1 / level) + LEARNING - float(money[-1]), spread, down, population - drawn),
        _draws(math.log(1 / level) + LEARNING, spread, up, population) - drawn,
    ]
    possible = [max(each, 1) for each, gap in zip(waits, (down, up), strict=True) if gap > 1e-3]
    more = math.ceil(min(possible)) if possible and drawn < population else None
    return Verdict(
        **numbers,
        outcome="not decided",
        reason=text
        + (
            ""
            if more is not None
            else "; no number of images would decide at the rate that was seen"
        ),
        more=more,
        more_seconds=None if more is None else more * seconds / drawn,
    )


def verdicts(claims: Sequence[Claim], records: Records) -> list[Verdict]:
    """Return what came of each claim."""
    clean, rounds, loaded = records.clean, records.rounds, records.loaded
    varies = loaded is not None and (loaded.randomized or loaded.fingerprint_varies)
    whole = clean is not None and clean.is_whole and not varies
    share = levels(claims, whole)
    size = loaded.population if loaded is not None else 0
    left = undecided(size, clean, broken_by_given(records), varies)
    draws: list[Round] = []
    if rounds is not None:
        standing = {i for i, stands in zip(rounds.indices, rounds.standing, strict=True) if stands}
        draws = left.rounds(rounds.sizes, rounds.indices, standing)
    misled = [] if rounds is None else sorted({f.name for f in rounds.flags} & MISLED)
    more: float | None = None
    if rounds is not None:
        more = (
            rounds.left_high if rounds.left_high is not None else 0.0 if rounds.escalated else None
        )
    return [
        clean_verdict(each, clean, share[each.name], varies)
        if each.is_clean
        else robust_verdict(
            each,
            left,
            draws,
            share[each.name],
            more_breaks=more,
            seconds=0.0 if rounds is None else rounds.seconds,
            misled=misled,
        )
        for each in claims
    ]


def broken_by_given(records: Records) -> set[int]:
    """Return the indices of samples that confirmed witnesses of the artefact break."""
    found = {index for each in records.witnesses for index in each.broken}
    return found | {index for each in records.runs for index in each.broken}


def _said(claim: Claim, level: float) -> dict[str, Any]:
    return {
        "name": claim.name,
        "title": claim.title,
        "claimed": claim.accuracy,
        "level": level,
    }


def _draws(missing: float, spread: float, gap: float, population: int) -> float:
    """Return how many draws are expected to gain `missing`, in the logarithm of the capital.

    A bettor with the best stake gains gap^2 / (2 spread) a draw, and more as a population is used
    up. Without a gap, all that are left.
    """
    needed = 2 * max(missing, 0.0) * max(spread, 1e-4) / max(gap, 1e-6) ** 2
    return needed / (1 + needed / max(population, 1))
