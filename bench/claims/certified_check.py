"""Certifications against the certified tables of papers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from scipy.special import ndtr, ndtri

from bench.certification.accuracy import certified_counts
from bench.claims.certified import CertifiedClaim, load_certified_claims
from bench.claims.comparison import Check
from bench.claims.verdict import ATTACK_SPREAD, Published, Verdict, compare_with_sample
from bench.data import named_dataset
from bench.statistics.comparison import SIGNIFICANCE
from bench.store import Store
from bench.store.records import Certificates
from bench.store.summary import CertifiedSummary
from bench.store.tables import certificates_of
from bench.suites import Suite

RADIUS_ROUNDING = 0.5e-3
"""Average certified radii are printed with three decimals."""
RADIUS_SPREAD = 0.002
"""How far other draws of noise may move an average certified radius, by convention."""
SIGMA_TOLERANCE = 1e-6
LOW = "a lower bound, since draws stopped early: certify with --procedure fixed"
HIGHER = "a better classifier than the published one, or more draws of noise"


def certified_checks(
    store: Store, suites: Sequence[Suite], assume_exchangeable: bool
) -> Iterator[Check]:
    """Compare certifications and imported logs with all numbers that papers print about them.

    A run matches a claim if its candidate names it as its claim or has the same name, and if data
    set, norm and sigma agree. Of several matching runs, one whose draws settle each radius counts
    before others, then the one with the most samples, then the newest. A claim without a run is
    listed under the first suite that has its data set and norm.

    Args:
        suites: whose runs to look at.
        assume_exchangeable: treat a run's first n samples as a random sample.
    """
    runs = [
        run
        for suite in suites
        for run in store.summaries(suite.name)
        if isinstance(run, CertifiedSummary)
    ]
    claims = load_certified_claims()
    listing: dict[tuple[str | None, str], str] = {}
    for suite in suites:
        listing.setdefault((suite.data.name, suite.threat_model.norm), suite.name)
    for claim in claims:
        found = [run for run in runs if _is_about(run, claim)]
        run = max(found, key=_weight, default=None)
        if run is not None:
            yield _compare(store, run, claim, _rounding(claim, claims), assume_exchangeable)
        elif (claim.dataset, claim.norm) in listing:
            yield _check(listing[claim.dataset, claim.norm], claim, Verdict("not measured"))


def _is_about(run: CertifiedSummary, claim: CertifiedClaim) -> bool:
    manifest = run.manifest
    names = (str(manifest.information.get("claim")), manifest.candidate)
    return (
        claim.model_id.lower() in [name.lower() for name in names]
        and manifest.dataset.name == claim.dataset
        and manifest.threat_model.norm == claim.norm
        and abs(float(manifest.engine_settings["sigma"]) - claim.sigma) < SIGMA_TOLERANCE
        and "noise_samples" not in manifest.overrides
    )


def _weight(run: CertifiedSummary) -> tuple[bool, int, str]:
    return not run.radii_are_low, run.n_examples, run.finished


def _as_bound(verdict: Verdict) -> Verdict:
    """Return a verdict about a number that all draws might raise: it can be too low, not lower."""
    if verdict.outcome == "lower than published":
        return replace(verdict, outcome="cannot tell", note=LOW)
    return verdict


def _compare(
    store: Store,
    run: CertifiedSummary,
    claim: CertifiedClaim,
    rounding: float,
    assume_exchangeable: bool,
) -> Check:
    suite = run.manifest.suite
    certificates = certificates_of(store.folder(run.manifest).samples())
    chosen = _claimed_samples(certificates, claim)
    n = len(chosen.index)
    if n == 0:
        nothing = Verdict("cannot tell", "none of the published number's samples")
        return _check(suite, claim, nothing, run)
    if claim.certified_accuracy is None or claim.radius is None:
        radii = chosen.radius * (chosen.prediction == chosen.label)
        verdict = _compare_radius(claim, radii, run, assume_exchangeable)
        if run.radii_are_low:
            verdict = _as_bound(verdict)
        return _check(suite, claim, verdict, run, float(radii.mean()), n)
    (count,) = certified_counts(chosen, [claim.radius])
    published = Published(claim.certified_accuracy, claim.n_examples, rounding)
    verdict = compare_with_sample(
        published, count, n, run.manifest.selection, ATTACK_SPREAD, assume_exchangeable
    )
    if run.is_low_at(claim.radius):
        verdict = _as_bound(verdict)
    if verdict.outcome == "higher than published":
        verdict = replace(verdict, note=HIGHER)
    return _check(suite, claim, verdict, run, count / n, n)


def _claimed_samples(certificates: Certificates, claim: CertifiedClaim) -> Certificates:
    """Keep the samples that the claim was measured on: every n-th image of the test set."""
    chosen = certificates.index % (named_dataset(claim.dataset).test_size // claim.n_examples) == 0
    return Certificates(**{name: value[chosen] for name, value in vars(certificates).items()})


def _compare_radius(
    claim: CertifiedClaim,
    radii: np.ndarray[tuple[int], np.dtype[np.float64]],
    run: CertifiedSummary,
    assume_exchangeable: bool,
) -> Verdict:
    """Compare a mean radius with the published one.

    This uses the normal approximation of a mean over a random part of a finite population.
    """
    n, population = len(radii), claim.n_examples
    assert claim.average_certified_radius is not None
    difference = float(radii.mean()) - claim.average_certified_radius
    if n < population and run.manifest.selection.kind != "random" and not assume_exchangeable:
        note = f"the {n} are not a random sample: use --sample random, or --assume-exchangeable"
        return Verdict("cannot tell", note)
    deviation = float(radii.std()) * math.sqrt((1 - n / population) / n)
    verdict = compare_mean_radius(difference, RADIUS_SPREAD + RADIUS_ROUNDING, deviation)
    unclear = n < population and -deviation * ndtri(SIGNIFICANCE / 2) > 0.01
    if verdict.outcome == "reproduced" and unclear:
        note = f"n too small (n = {population} is enough)"
        return replace(verdict, outcome="cannot tell", note=note)
    return verdict


def compare_mean_radius(difference: float, allowed: float, deviation: float) -> Verdict:
    """Compare average certified radii.

    Args:
        difference: the measured one minus the published one.
        allowed: differences up to it are ignored.
        deviation: standard deviation of the difference by chance of the samples.
    """
    beyond = max(abs(difference) - allowed, 0.0)
    p_value = 2 * float(ndtr(-beyond / deviation)) if deviation else float(beyond == 0)
    if not beyond or p_value >= SIGNIFICANCE:
        return Verdict("reproduced", "", p_value)
    if difference < 0:
        return Verdict("lower than published", "", p_value)
    return Verdict("higher than published", HIGHER, p_value)


def _rounding(claim: CertifiedClaim, claims: Sequence[CertifiedClaim]) -> float:
    """Return half a unit of the last digit that the claim's table prints, as a fraction."""
    percentages = [
        100 * other.certified_accuracy
        for other in claims
        if other.model_id == claim.model_id and other.certified_accuracy is not None
    ]
    whole = all(abs(value - round(value)) < 1e-9 for value in percentages)
    return 0.5e-2 if whole else 0.5e-3


def _check(
    suite: str,
    claim: CertifiedClaim,
    verdict: Verdict,
    run: CertifiedSummary | None = None,
    measured: float | None = None,
    n: int | None = None,
) -> Check:
    accuracy = claim.certified_accuracy
    published = claim.average_certified_radius if accuracy is None else accuracy
    assert published is not None
    counts = (
        (round(accuracy * claim.n_examples), claim.n_examples) if accuracy is not None else None
    )
    return Check(
        suite=suite,
        name=f"{claim.model_id} {claim.architecture}",
        quantity=claim.quantity,
        source=f"{claim.paper}, {claim.source}",
        published=published,
        verdict=verdict,
        run="" if run is None else f"{run.manifest.suite}/{run.manifest.candidate}@{run.run}",
        measured=measured,
        n=n,
        claimed_counts=counts,
    )
