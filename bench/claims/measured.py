"""What runs measured, as it is put beside published and accepted numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from bench.claims.comparison import Check
from bench.claims.verdict import ATTACK_SPREAD, CLEAN_SPREAD, Verdict
from bench.store import Store
from bench.store.best_known import best_known
from bench.store.same_candidate import same_candidate
from bench.store.summary import AttackedSummary, Summary

Quantity = Literal["clean", "AutoAttack", "robust", "express", "best known"]


def measured_value(store: Store, run: AttackedSummary, quantity: Quantity) -> float | None:
    """Return a run's accuracy, a fraction; None if the run does not tell it."""
    if quantity == "clean":
        return run.clean_accuracy
    if quantity == "AutoAttack":
        return run.autoattack_accuracy
    if quantity == "best known":
        return best_known(store, run).robust_accuracy
    return run.robust_accuracy


def spread_of(quantity: Quantity, run: AttackedSummary, runs: Sequence[AttackedSummary]) -> float:
    """Return which differences of an accuracy, a fraction, are attributed to chance."""
    return CLEAN_SPREAD if quantity == "clean" else seed_spread(run, runs)


def seed_spread(run: AttackedSummary, runs: Sequence[AttackedSummary]) -> float:
    """Return the spread of the robust accuracy over runs that differ from `run` only in the seed.

    Returns:
        a fraction, at least `ATTACK_SPREAD`.
    """
    found = [
        other.robust_accuracy
        for other in runs
        if _but_for_seed(other) == _but_for_seed(run)
        and same_candidate(other.manifest, run.manifest)
    ]
    return max(max(found, default=0.0) - min(found, default=0.0), ATTACK_SPREAD)


def _but_for_seed(run: AttackedSummary) -> str:
    return run.manifest.model_copy(update={"seed": 0, "repetition": 0}).run


def entry(
    suite: str,
    name: str,
    quantity: str,
    source: str,
    published: float,
    verdict: Verdict,
    run: Summary | None,
    measured: float | None,
    claimed_counts: tuple[int, int] | None = None,
) -> Check:
    """Return a check; without a measured number it names no run. See `Check` for the arguments."""
    held = run is not None and measured is not None
    return Check(
        suite=suite,
        name=name,
        quantity=quantity,
        source=source,
        published=published,
        verdict=verdict,
        run=f"{suite}/{run.manifest.candidate}@{run.run}" if run is not None and held else "",
        measured=measured,
        n=run.n_examples if run is not None and held else None,
        claimed_counts=claimed_counts,
    )
