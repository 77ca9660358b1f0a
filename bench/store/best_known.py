"""Best-known robust accuracy: the result of all runs of one candidate together.

A sample counts as broken if any run broke it. Two runs are joined if they evaluated the same
candidate (`bench.store.same_candidate`) on the same data under the same norm, at the same radius or
a smaller one: a witness in a smaller ball also lies in a larger one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from bench.errors import InputError
from bench.store import Store
from bench.store.same_candidate import same_candidate
from bench.store.summary import Summary
from bench.suites.suite import EPS_TOLERANCE


@dataclass(frozen=True)
class BestKnown:
    """The lowest robust accuracy known on the samples of a run.

    Attributes:
        run: name of the run.
        own_accuracy: robust accuracy by this run alone.
        robust_accuracy: robust accuracy by all joined runs.
        lowered: number of samples that survived this run and were broken in another.
        runs: names of the runs that broke them; the run that broke the most comes first.
    """

    run: str
    own_accuracy: float
    robust_accuracy: float
    lowered: int
    runs: tuple[str, ...]


def best_known(
    store: Store, summary: Summary, others: Sequence[Summary] | None = None
) -> BestKnown:
    """Join a run with all other runs of its candidate; unreadable runs are skipped.

    A certification is joined with no other run, because it is about another classifier: the vote
    under noise.

    Args:
        others: the runs to join; None: all runs of the store.

    Raises:
        InputError: the run's own table of samples is damaged.
    """
    if not summary.kind.has_witnesses:
        accuracy = summary.robust_accuracy
        return BestKnown(summary.run, accuracy, accuracy, lowered=0, runs=())
    own = store.folder(summary.manifest).samples()
    standing = set(own.loc[own["robust"], "index"].tolist())
    fallen: dict[str, int] = {}
    for other in store.readable_summaries() if others is None else others:
        if other.run == summary.run or not _joins(other, summary):
            continue
        try:
            samples = store.folder(other.manifest).samples()
        except InputError:
            continue
        if not _same_labels(own, samples):
            continue
        broken = standing & set(samples.loc[_proven_wrong(samples), "index"].tolist())
        if broken:
            fallen[other.run] = len(broken)
            standing -= broken
    lowered = sum(fallen.values())
    return BestKnown(
        run=summary.run,
        own_accuracy=summary.robust_accuracy,
        robust_accuracy=summary.robust_accuracy - lowered / summary.n_examples,
        lowered=lowered,
        runs=tuple(sorted(fallen, key=lambda run: -fallen[run])),
    )


def newest_evaluation(store: Store, summary: Summary) -> Summary | None:
    """Return the newest evaluation of the run's own candidate at its own radius, or None.

    A run of the same name may have other weights, or an earlier definition of the candidate.
    """
    found = [
        other
        for other in store.readable_summaries()
        if other.kind.is_ranked and _joins(other, summary) and _joins(summary, other)
    ]
    return max(found, key=lambda each: each.finished, default=None)


def _joins(other: Summary, summary: Summary) -> bool:
    """Return whether a sample broken in the other run is broken for this one too."""
    theirs, ours = other.manifest, summary.manifest
    return (
        other.kind.has_witnesses
        and same_candidate(theirs, ours)
        and (theirs.dataset.name, theirs.dataset.size) == (ours.dataset.name, ours.dataset.size)
        and theirs.threat_model.norm == ours.threat_model.norm
        and theirs.threat_model.eps <= ours.threat_model.eps + EPS_TOLERANCE
        and (theirs.selection != ours.selection or theirs.dataset.sha256 == ours.dataset.sha256)
    )


def _proven_wrong(samples: pd.DataFrame) -> pd.Series[bool]:
    """Return which samples a run has shown to be wrong: by a witness, or by a class without attack.

    A sample on which the candidate only failed there may be right here.
    """
    wrong = ~samples["clean_correct"] & (samples["clean_prediction"] >= 0)
    return wrong | samples["broken_by"].notna()


def _same_labels(own: pd.DataFrame, other: pd.DataFrame) -> bool:
    """Return whether two runs have the same label for every sample that both evaluated."""
    shared = own[["index", "label"]].merge(other[["index", "label"]], on="index")
    return bool((shared["label_x"] == shared["label_y"]).all())
