"""Compare clean accuracy with the published one before days of attacks on a wrong model."""

from __future__ import annotations

from collections.abc import Iterable

from bench.claims.claims import claims_at_other_radii, claims_for, find_claim
from bench.claims.verdict import (
    CLEAN_SPREAD,
    PRINTED_ROUNDING,
    Published,
    compare_with_sample,
)
from bench.data import named_dataset
from bench.errors import EvaluationError
from bench.formatting import interval, percent
from bench.store.manifest import Manifest
from bench.store.records import AttackBlock
from bench.suites import Suite

GATE_SIGNIFICANCE = 0.001
"""A strict level, because the first samples are treated as random ones here."""


def check_clean_accuracy(suite: Suite, manifest: Manifest, blocks: Iterable[AttackBlock]) -> None:
    """Compare a run's clean predictions with the claim about its candidate, if there is one.

    Args:
        blocks: the blocks finished so far. Nothing is checked until they hold the clean predictions
            of all samples, or of the first round of a growing selection.

    Raises:
        EvaluationError: the measured clean accuracy contradicts the published one.
    """
    claims = [*claims_for(suite), *claims_at_other_radii(suite.data.label, suite.threat_model)]
    claim = find_claim(claims, manifest.information.get("claim"))
    clean = [block.clean for block in blocks if block.clean is not None]
    n = sum(len(part.index) for part in clean)
    selection = manifest.selection
    expected = min(selection.round or selection.n, selection.n)
    if claim is None or claim.clean_accuracy is None or n < expected:
        return
    right = sum(int((part.prediction == part.label).sum()) for part in clean)
    population = suite.n_examples or named_dataset(claim.dataset).test_size
    verdict = compare_with_sample(
        Published(claim.clean_accuracy, population, PRINTED_ROUNDING),
        right,
        n,
        selection,
        CLEAN_SPREAD,
        assume_exchangeable=True,
    )
    differs = verdict.outcome in ("lower than published", "higher than published")
    if not differs or verdict.p_value is None or verdict.p_value >= GATE_SIGNIFICANCE:
        return
    bounds = "" if verdict.interval is None else f", 95% interval {interval(verdict.interval)}"
    raise EvaluationError(
        f"{manifest.candidate}: expected clean accuracy {percent(claim.clean_accuracy)}% as "
        f"published for {claim.model_id} ({claim.source}), got {percent(right / n)}% on {n} "
        f"samples{bounds}. The usual reasons are a wrong normalization, a wrong preprocessing or "
        "wrong weights; nothing was attacked. If it is right, go on with --allow-clean-mismatch"
    )
