"""Refuted, consistent or not decided: what an audit's records say of each claim.

A claim of robust accuracy c is read as "at least c of the test images survive every attack in the
ball". Attacks give an upper bound image by image: what they break is not robust, whatever else is
tried. So breaks can refute the claim, and nothing that survives can prove it.

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

from collections.abc import Sequence

from bench.auditing.claims import Claim
from bench.auditing.clean_verdict import clean_verdict
from bench.auditing.records import Records
from bench.auditing.robust_verdict import robust_verdict
from bench.auditing.undecided import undecided
from bench.auditing.verdict import Verdict
from bench.statistics.betting import Round

LEVEL = 0.05

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
"""Flags under which what survives says nothing."""


def levels(claims: Sequence[Claim], clean_is_whole: bool) -> dict[str, float]:
    """Return the false alarm of each claim's test; they sum to `LEVEL` at most."""
    sampled = [each for each in claims if not (each.is_clean and clean_is_whole)]
    return {each.name: LEVEL / max(len(sampled), 1) for each in claims}


def verdicts(claims: Sequence[Claim], records: Records) -> list[Verdict]:
    """Return what came of each claim."""
    clean, rounds, loaded = records.clean, records.rounds, records.loaded
    varies = loaded is not None and loaded.may_vary
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
