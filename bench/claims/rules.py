"""The rules by which a paper's claim is judged on our records.

A rule looks at one test of a claim, and says "seen" where the records show it beyond chance, "not
seen" where they show the opposite, or that the difference is smaller than what was claimed, and
"not decided" where they allow both. All intervals are paired, by image, at 95%. They are about the
images: what another training would bring they do not say. Where a test has several trainings of a
network, a difference must also exceed twice their spread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bench.certification.contradiction import too_many
from bench.claims.accepted_samples import RadiiOfSamples
from bench.claims.evidence import Evidence, Standing, common, on_common_samples
from bench.claims.papers import PaperClaim, Rule, Test
from bench.claims.wording import (
    between,
    difference,
    mean_radius,
    places,
    radius_difference,
    share,
    size,
)
from bench.formatting import percent
from bench.statistics.comparison import SIGNIFICANCE
from bench.statistics.paired import mean_interval, paired_counts
from bench.suites import read_suite

ROUNDING = 1e-9
"""Differences of shares are whole numbers of images, but for this."""
Outcome = Literal["seen", "not seen", "not decided"]


@dataclass(frozen=True)
class Number:
    """A measured number in words: what it is, and its value with an interval."""

    what: str
    value: str


@dataclass(frozen=True)
class Finding:
    """What a rule found in one test.

    Attributes:
        test: the test.
        outcome: whether the claim was seen.
        reason: why, as a sentence without its full stop.
        samples: which images, in words.
        numbers: what was measured.
    """

    test: Test
    outcome: Outcome
    reason: str
    samples: str = ""
    numbers: tuple[Number, ...] = ()


def judge(claim: PaperClaim, evidence: Evidence) -> list[Finding]:
    """Return what the claim's rule finds in each of its tests.

    Raises:
        InputError: records that a test compares have no sample in common.
    """
    return [RULES[claim.rule](claim, test, evidence) for test in claim.tests]


def _gains_more_than_it_loses(claim: PaperClaim, test: Test, evidence: Evidence) -> Finding:
    """Compare the clean accuracy that is gained with the robust accuracy that is lost.

    Each image's gain and loss enter as one number, from -2 to 2, whose mean gets an interval.
    """
    found = _standing(test, evidence)
    if isinstance(found, Finding):
        return found
    changes = sum(
        each[0].astype(float) - each[1].astype(float) for each in (found.clean, found.robust)
    )
    low, high = mean_interval(changes)
    outcome: Outcome = "not decided"
    if low > 0:
        outcome, reason = "seen", "the gain exceeds the loss beyond chance"
    elif high < 0:
        outcome, reason = "not seen", "the loss exceeds the gain beyond chance"
    else:
        reason = "gain and loss cannot be told apart on these images"
    numbers = (
        *_accuracies(test, found),
        Number("gain minus loss", between(float(changes.mean()), low, high)),
    )
    return Finding(test, outcome, reason, places(found.index), numbers)


def _more_accurate_at_equal_robustness(
    claim: PaperClaim, test: Test, evidence: Evidence
) -> Finding:
    """Compare with the most accurate rival that is as robust, up to the claim's tolerance.

    It is seen if the clean accuracy is higher beyond chance (McNemar's exact test) and by at least
    the claim's gain, and not seen if the interval excludes such a gain. Where no rival is as
    robust, the most robust one stands for them: whoever is more accurate than it shows more than
    was claimed, and whoever is not shows nothing.
    """
    found = _standing(test, evidence)
    if isinstance(found, Finding):
        return found
    clean = [paired_counts(found.clean[0], rival) for rival in found.clean[1:]]
    robust = [paired_counts(found.robust[0], rival) for rival in found.robust[1:]]
    as_robust = [
        place
        for place, counts in enumerate(robust)
        if counts.difference <= claim.tolerance + ROUNDING
    ]
    if as_robust:
        rival = min(as_robust, key=lambda place: clean[place].difference)
        kind = "the most accurate rival as robust on these images"
    else:
        rival = min(range(len(robust)), key=lambda place: robust[place].difference)
        kind = "the most robust rival, of which none is as robust on these images"
    counts, gain = clean[rival], size(claim.least_gain)
    over = f"{test.against[rival].name}, {kind}"
    low, high = counts.interval()
    outcome: Outcome = "not decided"
    if low > 0 and counts.p_value < SIGNIFICANCE and counts.difference >= claim.least_gain:
        outcome, reason = "seen", f"more accurate beyond chance than {over}"
    elif high < claim.least_gain and as_robust:
        outcome, reason = "not seen", f"a gain of {gain} is excluded over {over}"
    elif low > 0:
        reason = f"there is a gain, but perhaps of less than {gain}, over {over}"
    else:
        reason = f"it may be that there is no gain over {over}"
    return Finding(test, outcome, reason, places(found.index), _accuracies(test, found))


def _certificates_hold(claim: PaperClaim, test: Test, evidence: Evidence) -> Finding:
    """Ask whether there are certificates at the suite's radius, and whether attacks broke any.

    What is certified is the mix with the votes of its robust base, what is attacked the mix with
    that base's mean softmax under noise. These are two classifiers, so an attacked image inside a
    certified radius decides nothing: fresh votes on it do.
    """
    certified = _radii(test, evidence)
    if isinstance(certified, Finding):
        return certified
    (mine,), (base,) = certified
    samples = places(mine.index)
    eps = read_suite(test.suite).threat_model.eps
    numbers = _certified_numbers(test, mine, base, eps)
    attacked = evidence.samples_of(test.suite, test.network)
    if attacked is None:
        return Finding(test, "not decided", "no accepted run attacked it", samples, tuple(numbers))
    if attacked.weights_sha256 != mine.weights_sha256:
        reason = "the accepted attack is one on other weights than the certified ones"
        return Finding(test, "not decided", reason, samples, tuple(numbers))
    of_mine, of_attacked = common(mine.index, attacked.index)
    # Where the mean softmax is wrong without an attack, nothing was attacked.
    tried = mine.at(eps)[of_mine] & attacked.standing("clean")[of_attacked]
    broken = tried & ~attacked.standing("robust")[of_attacked]
    numbers.append(
        Number(
            f"broken by attacks, of those certified at {eps:g} and right without an attack",
            f"{broken.sum():,} of {tried.sum():,}",
        )
    )
    asked, against = int(mine.asked.sum()), int(mine.contradicted.sum())
    if asked:
        what = "contradicted by fresh votes, of all certificates with an attacked image inside"
        numbers.append(Number(what, f"{against:,} of {asked:,}"))
    outcome: Outcome = "seen"
    if too_many(against, asked):
        outcome, reason = "not seen", "fresh votes contradict certificates, beyond their errors"
    elif (broken & ~mine.asked[of_mine]).any():
        outcome = "not decided"
        reason = (
            "attacks on the mean softmax broke images inside the radius that the votes certify, "
            "and no fresh votes were taken on them"
        )
    elif not mine.at(eps).any():
        outcome, reason = "not seen", f"nothing is certified at {eps:g}"
    elif asked:
        reason = (
            "there are certificates, and where attacks on the mean softmax reached into them, "
            "fresh votes contradict "
            + ("no more of them than their errors explain" if against else "none")
        )
    else:
        reason = "there are certificates, and no attack broke one"
    return Finding(test, outcome, reason, samples, tuple(numbers))


def _certified_numbers(
    test: Test, mine: RadiiOfSamples, base: RadiiOfSamples, eps: float
) -> list[Number]:
    """Return what is certified of a mix and of its robust base on the same samples."""
    at, numbers = f"certified at {eps:g}", []
    for name, radii in ((f"`{test.network.candidate}`", mine), (test.against[0].name, base)):
        numbers += [
            Number(f"{name}: right by votes", share(radii.at(0))),
            Number(f"{name}: {at}", share(radii.at(eps))),
            Number(f"{name}: average certified radius", mean_radius(radii.counted)),
        ]
    return [
        *numbers,
        Number("difference, right by votes", difference(paired_counts(mine.at(0), base.at(0)))),
        Number(f"difference, {at}", difference(paired_counts(mine.at(eps), base.at(eps)))),
    ]


def _larger_average_radius(claim: PaperClaim, test: Test, evidence: Evidence) -> Finding:
    """Compare average certified radii, by the interval of the mean difference by image.

    Of several trainings each image's mean radius counts. The difference must then exceed twice the
    spread as well: the standard deviation, over trainings, of the average certified radius, the
    larger one of both networks.
    """
    certified = _radii(test, evidence)
    if isinstance(certified, Finding):
        return certified
    networks = (test.network, test.against[0])
    radii = [np.stack([each.counted for each in trainings]) for trainings in certified]
    mine, other = (each.mean(axis=0) for each in radii)
    spreads = [_spread(each.mean(axis=1)) for each in radii]
    low, high = mean_interval(mine - other)
    outcome: Outcome = "not decided"
    if high < 0:
        outcome, reason = "not seen", "smaller beyond chance"
    elif low <= 0:
        reason = "the radii cannot be told apart on these images"
    elif (mine - other).mean() <= 2 * max(spreads):
        reason = "larger on these images, but by no more than twice the spread of trainings"
    else:
        outcome, reason = "seen", "larger beyond chance"
        if max(spreads) > 0:
            reason += ", and by more than twice the spread of trainings"
    numbers = [
        Number(f"{network.name}: average certified radius", mean_radius(value))
        for network, value in zip(networks, (mine, other), strict=True)
    ]
    numbers.append(Number("difference", radius_difference(mine - other)))
    numbers += [
        Number(f"{network.name}: standard deviation over trainings", f"{spread:.3f}")
        for network, spread in zip(networks, spreads, strict=True)
        if network.trainings > 1
    ]
    return Finding(test, outcome, reason, places(certified[0][0].index), tuple(numbers))


def _spread(values: NDArray[np.float64]) -> float:
    """Return the standard deviation of values (n,) of which each is a training's; 0 for one."""
    return float(values.std(ddof=1)) if len(values) > 1 else 0.0


def _same_robust_accuracy(claim: PaperClaim, test: Test, evidence: Evidence) -> Finding:
    """Ask whether the interval of the difference lies within the claim's tolerance."""
    found = _standing(test, evidence)
    if isinstance(found, Finding):
        return found
    robust = paired_counts(found.robust[0], found.robust[1])
    low, high = robust.interval()
    outcome: Outcome = "not decided"
    if max(-low, high) <= claim.tolerance:
        outcome, reason = "seen", f"a difference of more than {size(claim.tolerance)} is excluded"
    elif robust.p_value < SIGNIFICANCE:
        outcome, reason = "not seen", "they differ beyond chance"
    else:
        reason = f"too few images to exclude a difference of {size(claim.tolerance)}"
    numbers = (
        Number(f"{test.network.name}: robust", share(found.robust[0])),
        Number(f"{test.against[0].name}: robust", share(found.robust[1])),
        Number("difference", difference(robust)),
        Number("images on which they differ", f"{robust.only_first + robust.only_second:,}"),
    )
    return Finding(test, outcome, reason, places(found.index), numbers)


RULES: Mapping[Rule, Callable[[PaperClaim, Test, Evidence], Finding]] = MappingProxyType(
    {
        "gains-more-than-it-loses": _gains_more_than_it_loses,
        "more-accurate-at-equal-robustness": _more_accurate_at_equal_robustness,
        "certificates-hold": _certificates_hold,
        "larger-average-radius": _larger_average_radius,
        "same-robust-accuracy": _same_robust_accuracy,
    }
)


def _standing(test: Test, evidence: Evidence) -> Standing | Finding:
    """Return what the test's runs say of their common samples; or why there is no such record."""
    networks = (test.network, *test.against)
    for network in networks:
        if evidence.samples_of(test.suite, network) is None:
            kept = evidence.result(test.suite, network) is not None
            reason = (
                f"the accepted run of {network.name} kept no record of its samples"
                if kept
                else f"there is no accepted run of {network.name}"
            )
            return Finding(test, "not decided", reason, numbers=_unpaired(test, evidence))
    return evidence.standing(test.suite, networks)


def _radii(
    test: Test, evidence: Evidence
) -> tuple[list[RadiiOfSamples], list[RadiiOfSamples]] | Finding:
    """Return the radii of the test's two networks on their common samples; or why not.

    Each has one certification for each of its trainings, all with noise drawn alike.
    """
    found = []
    for network in (test.network, test.against[0]):
        for training in network.each_training:
            radii = evidence.radii(test.suite, training)
            if not radii:
                reason = f"there is no accepted certification of {training.name}"
                return Finding(test, "not decided", reason)
            found.append(radii)
    alike = set.intersection(*(set(radii) for radii in found))
    if not alike:
        reason = "the certifications differ in their procedure or number of draws"
        return Finding(test, "not decided", reason)
    chosen = on_common_samples([radii[max(alike)] for radii in found])
    return chosen[: test.network.trainings], chosen[test.network.trainings :]


def _unpaired(test: Test, evidence: Evidence) -> tuple[Number, ...]:
    """Return the accuracies that there are, where samples cannot be compared."""
    found = [
        (network, evidence.result(test.suite, network.model_copy(update={"protocol": ""})))
        for network in (test.network, *test.against)
    ]
    return tuple(
        Number(
            f"{network.name}, {row.protocol}: clean, robust",
            f"{percent(row.clean_accuracy)}, {percent(row.robust_accuracy)} "
            f"(n = {row.n_examples:,}; accuracies alone, not paired)",
        )
        for network, row in found
        if row is not None
    )


def _accuracies(test: Test, found: Standing) -> tuple[Number, ...]:
    """Return every network's accuracies, and the differences from those it is held against."""
    numbers = []
    for place, network in enumerate((test.network, *test.against)):
        for what, stands in (("clean", found.clean), ("robust", found.robust)):
            value = share(stands[place])
            if place:
                less = difference(paired_counts(stands[0], stands[place]))
                value += f"; {test.network.name} minus it {less}"
            numbers.append(Number(f"{network.name}: {what}", value))
    return tuple(numbers)
