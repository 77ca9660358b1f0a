"""Accuracy against passes spent: has the attack converged?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bench.pages.candidate_records import CandidateRecords
from bench.store.records import FloatArray

LAST = 0.5
"""The part of the passes at whose end a curve that still falls has not converged: the last half."""


@dataclass(frozen=True)
class PassesCurve:
    """The accuracy if the attacks on each sample had stopped after some passes.

    Attributes:
        passes: (k,) ascending, where the accuracy changes; the first is 0, the last the most passes
            that any sample took.
        accuracy: (k,) accuracy from there on.
        ends: mean passes of the standing samples at which each attack ended, with its name.
        broke_late: samples that the last half of the passes broke.
    """

    passes: FloatArray
    accuracy: FloatArray
    ends: tuple[tuple[float, str], ...]
    broke_late: int


def passes_curve(records: CandidateRecords) -> PassesCurve | None:
    """Return the curve; None if no attack counted its passes."""
    most = float(records.passes.max(initial=0.0))
    if most <= 0 or not np.isfinite(most):
        return None
    broke = np.sort(records.passes[records.broken])
    right = int(records.clean_correct.sum())
    places, counts = np.unique(broke, return_counts=True)
    fallen = np.cumsum(counts)
    passes = np.concatenate(([0.0], places, [most]))
    standing = np.concatenate(([right], right - fallen, [right - len(broke)]))
    return PassesCurve(
        passes=passes,
        accuracy=standing / records.n,
        ends=_ends(records),
        broke_late=int((broke > LAST * most).sum()),
    )


def _ends(records: CandidateRecords) -> tuple[tuple[float, str], ...]:
    """Return where each attack ended for the samples that survived all of them, on average."""
    stood = records.samples.loc[records.robust, "index"]
    if not len(stood):
        return ()
    attempts = records.attempts[records.attempts["index"].isin(set(stood.tolist()))]
    passes = attempts["forward_passes"] + attempts["backward_passes"]
    spent = passes.groupby(attempts["attack"], observed=True).sum().to_dict()
    total, ends = 0.0, []
    for attack in (done.name for done in records.summary.attacks):
        if attack in spent:
            total += float(spent[attack]) / len(stood)
            ends.append((total, attack))
    return tuple(ends)
