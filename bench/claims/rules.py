"""The rules by which a paper's claim is judged on our records.

A rule looks at one test of a claim, and says "seen" where the records show it beyond chance, "not
seen" where they show the opposite, or that the difference is smaller than what was claimed, and
"not decided" where they allow both. All intervals are paired, by image, at 95%. They are about the
images: what another training would bring they do not say.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bench.claims.accepted_samples import RadiiOfSamples, SampleOutcomes
from bench.claims.evidence import Evidence, common, paired
from bench.claims.papers import Network, PaperClaim, Rule, Test
from bench.formatting import interval, percent, points
from bench.statistics import exact_binomial_interval
from bench.statistics.comparison import SIGNIFICANCE
from bench.statistics.paired import PairedCounts, mean_interval, paired_counts
from bench.suites import read_suite

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
    found = _evaluations(test, evidence)
    if isinstance(found, Finding):
        return found
    mine, (base,) = found[0], found[1:]
    clean, robust = paired(mine, base, "clean"), paired(mine, base, "robust")
    of_mine, of_base = common(mine.index, base.index)
    changes = sum(
        mine.standing(quantity)[of_mine].astype(float) - base.standing(quantity)[of_base]
        for quantity in ("clean", "robust")
    )
    assert isinstance(changes, np.ndarray)
    low, high = mean_interval(changes)
    outcome: Outcome = "not decided"
    if low > 0:
        outcome, reason = "seen", "the gain exceeds the loss beyond chance"
    elif high < 0:
        outcome, reason = "not seen", "the loss exceeds the gain beyond chance"
    else:
        reason = "gain and loss cannot be told apart on these images"
    name = test.against[0].name
    numbers = (
        *_accuracies(test.network, clean, robust, first=True),
        *_accuracies(test.against[0], clean, robust, first=False),
        Number(f"clean, minus {name}", difference(clean)),
        Number(f"robust, minus {name}", difference(robust)),
        Number("gain minus loss", _between(float(changes.mean()), low, high)),
    )
    return Finding(test, outcome, reason, samples_in_words(mine.index[of_mine]), numbers)


def _more_accurate_at_equal_robustness(
    claim: PaperClaim, test: Test, evidence: Evidence
) -> Finding:
    """Compare with the most accurate rival that is as robust, up to the claim's tolerance.

    It is seen if the clean accuracy is higher beyond chance (McNemar's exact test) and by at least
    the claim's gain, and not seen if the interval excludes such a gain.
    """
    found = _evaluations(test, evidence)
    if isinstance(found, Finding):
        return found
    mine, rivals = found[0], list(zip(test.against, found[1:], strict=True))
    pairs = [
        (network, paired(mine, rival, "clean"), paired(mine, rival, "robust"))
        for network, rival in rivals
    ]
    numbers = [*_accuracies(test.network, pairs[0][1], pairs[0][2], first=True)]
    for network, clean, robust in pairs:
        numbers += [
            *_accuracies(network, clean, robust, first=False),
            Number(f"clean, minus {network.name}", difference(clean)),
            Number(f"robust, minus {network.name}", difference(robust)),
        ]
    as_robust = [each for each in pairs if each[2].difference <= claim.tolerance + 1e-9]
    samples = samples_in_words(_shared(found))
    if not as_robust:
        return Finding(
            test,
            "not decided",
            f"no rival is as robust, up to {_size(claim.tolerance)} points",
            samples,
            tuple(numbers),
        )
    network, clean, _ = max(as_robust, key=lambda each: -each[1].difference)
    low, high = clean.interval()
    name = f"the most accurate rival that is as robust, {network.name}"
    outcome: Outcome = "not decided"
    if high < claim.least_gain:
        outcome = "not seen"
        reason = f"the interval excludes a gain of {_size(claim.least_gain)} points over {name}"
    elif low > 0 and clean.p_value < SIGNIFICANCE and clean.difference >= claim.least_gain:
        outcome, reason = "seen", f"more accurate beyond chance than {name}"
    else:
        reason = (
            f"no gain and one of {_size(claim.least_gain)} points are both possible over {name}"
            if low <= 0
            else f"a gain, but perhaps below {_size(claim.least_gain)} points, over {name}"
        )
    return Finding(test, outcome, reason, samples, tuple(numbers))


def _certificates_hold(claim: PaperClaim, test: Test, evidence: Evidence) -> Finding:
    """Ask whether there are certificates at the suite's radius, and whether attacks broke any.

    What is certified is the vote of the robust base, what is attacked the mean softmax under
    noise. These are two classifiers, so an attacked image inside a certified radius decides
    nothing; `bench run` asks fresh votes there, and flags a certificate that they do not bear out.
    """
    suite = read_suite(test.suite)
    radius = suite.threat_model.eps
    certified = _radii(test, evidence)
    if isinstance(certified, Finding):
        return certified
    mine, base = certified
    of_mine, of_base = common(mine.index, base.index)
    counts = paired_counts(mine.at(radius)[of_mine], base.at(radius)[of_base])
    clean = paired_counts(mine.at(0)[of_mine], base.at(0)[of_base])
    name = test.against[0].name
    numbers = [
        Number(f"{test.network.name}: certified at {radius:g}", share(counts, first=True)),
        Number(f"{name}: certified at {radius:g}", share(counts, first=False)),
        Number(f"certified at {radius:g}, minus {name}", difference(counts)),
        Number(f"right without an attack, minus {name}", difference(clean)),
        Number(
            "average certified radius",
            f"{mine.counted.mean():.3f}; {name} {base.counted.mean():.3f}",
        ),
    ]
    samples = samples_in_words(mine.index[of_mine])
    outcomes = evidence.samples_of(test.suite, test.network)
    if outcomes is None:
        return Finding(test, "not decided", "no accepted run attacked it", samples, tuple(numbers))
    certified_at, attacked_at = common(mine.index, outcomes.index)
    certified_here = mine.at(radius)[certified_at]
    broken = certified_here & ~outcomes.standing("robust")[attacked_at]
    numbers.append(
        Number(
            f"certified at {radius:g}, and broken by an attack at it",
            f"{int(broken.sum())} of {int(certified_here.sum())}",
        )
    )
    if broken.any():
        outcome: Outcome = "not decided"
        reason = "attacks broke the mean softmax inside a radius that the vote certifies"
    elif counts.both + counts.only_first == 0:
        outcome, reason = "not seen", f"nothing is certified at {radius:g}"
    else:
        outcome, reason = "seen", "the mix has certificates, and no attack broke one"
    return Finding(test, outcome, reason, samples, tuple(numbers))


def _larger_average_radius(claim: PaperClaim, test: Test, evidence: Evidence) -> Finding:
    """Compare average certified radii, by the interval of the mean difference by image."""
    certified = _radii(test, evidence)
    if isinstance(certified, Finding):
        return certified
    mine, other = certified
    of_mine, of_other = common(mine.index, other.index)
    first, second = mine.counted[of_mine], other.counted[of_other]
    mean = float((first - second).mean())
    low, high = mean_interval(first - second)
    outcome: Outcome = "not decided"
    if low > 0:
        outcome, reason = "seen", "larger beyond chance"
    elif high < 0:
        outcome, reason = "not seen", "smaller beyond chance"
    else:
        reason = "the radii cannot be told apart on these images"
    by_log = bool(test.network.log)
    if not by_log and outcome == "seen":
        reason += "; one training of each, so that the seed's part is unknown"
    numbers = (
        Number(f"{test.network.name}: average certified radius", _radius(first)),
        Number(f"{test.against[0].name}: average certified radius", _radius(second)),
        Number("difference", f"{_signed(mean)} [{_signed(low)}, {_signed(high)}]"),
    )
    samples = samples_in_words(mine.index[of_mine])
    return Finding(test, outcome, reason, samples, numbers)


def _same_robust_accuracy(claim: PaperClaim, test: Test, evidence: Evidence) -> Finding:
    """Ask whether the interval of the difference lies within the claim's tolerance."""
    found = _evaluations(test, evidence)
    if isinstance(found, Finding):
        return found
    robust = paired(found[0], found[1], "robust")
    low, high = robust.interval()
    outcome: Outcome = "not decided"
    if max(-low, high) <= claim.tolerance:
        outcome = "seen"
        reason = f"a difference of more than {_size(claim.tolerance)} points is excluded"
    elif robust.p_value < SIGNIFICANCE:
        outcome, reason = "not seen", "they differ beyond chance"
    else:
        reason = f"too few images to exclude a difference of {_size(claim.tolerance)} points"
    numbers = (
        Number(f"{test.network.name}: robust", share(robust, first=True)),
        Number(f"{test.against[0].name}: robust", share(robust, first=False)),
        Number("difference", difference(robust)),
        Number("images on which they differ", str(robust.only_first + robust.only_second)),
    )
    return Finding(test, outcome, reason, samples_in_words(_shared(found)), numbers)


RULES: dict[Rule, Callable[[PaperClaim, Test, Evidence], Finding]] = {
    "gains-more-than-it-loses": _gains_more_than_it_loses,
    "more-accurate-at-equal-robustness": _more_accurate_at_equal_robustness,
    "certificates-hold": _certificates_hold,
    "larger-average-radius": _larger_average_radius,
    "same-robust-accuracy": _same_robust_accuracy,
}


def _evaluations(test: Test, evidence: Evidence) -> list[SampleOutcomes] | Finding:
    """Return the samples of the test's runs, its own network's first; or why there are none."""
    found: list[SampleOutcomes] = []
    for network in (test.network, *test.against):
        samples = evidence.samples_of(test.suite, network)
        if samples is None:
            kept = evidence.result(test.suite, network) is not None
            reason = (
                f"the accepted run of {network.name} kept no record of its samples"
                if kept
                else f"there is no accepted run of {network.name}"
            )
            return Finding(test, "not decided", reason, numbers=_unpaired(test, evidence))
        found.append(samples)
    return found


def _radii(test: Test, evidence: Evidence) -> tuple[RadiiOfSamples, RadiiOfSamples] | Finding:
    """Return the radii of the test's two certifications, or which one there is none of."""
    found = []
    for network in (test.network, test.against[0]):
        radii = evidence.radii(test.suite, network)
        if radii is None:
            reason = f"there is no accepted certification of {network.name}"
            return Finding(test, "not decided", reason)
        found.append(radii)
    return found[0], found[1]


def _unpaired(test: Test, evidence: Evidence) -> tuple[Number, ...]:
    """Return the accuracies that there are, where samples cannot be compared."""
    found = [
        (network, evidence.result(test.suite, network.model_copy(update={"protocol": ""})))
        for network in (test.network, *test.against)
    ]
    return tuple(
        Number(
            f"`{row.candidate}`, {row.protocol}: clean, robust",
            f"{percent(row.clean_accuracy)}, {percent(row.robust_accuracy)} "
            f"(n = {row.n_examples:,}; accuracies alone, not paired)",
        )
        for network, row in found
        if row is not None
    )


def _accuracies(
    network: Network, clean: PairedCounts, robust: PairedCounts, first: bool
) -> tuple[Number, ...]:
    return (
        Number(f"{network.name}: clean", share(clean, first)),
        Number(f"{network.name}: robust", share(robust, first)),
    )


def share(counts: PairedCounts, first: bool) -> str:
    """Return the share of the samples on which one of two stands, with its exact interval."""
    one = counts.only_first if first else counts.only_second
    bounds = exact_binomial_interval(counts.both + one, counts.n)
    return f"{percent((counts.both + one) / counts.n)} [{interval(bounds)}]"


def difference(counts: PairedCounts) -> str:
    """Return the difference of two accuracies with its interval and McNemar's p."""
    low, high = counts.interval()
    return f"{_between(counts.difference, low, high)}, p = {p_value(counts.p_value)}"


def samples_in_words(index: NDArray[np.int64]) -> str:
    """Describe samples by their places (n,) in the data set, ascending."""
    steps = set(np.diff(index).tolist())
    if index[0] == 0 and steps <= {1}:
        return f"the first {len(index):,}"
    if index[0] == 0 and len(steps) == 1:
        return f"{len(index):,}, one in {steps.pop()}"
    return f"{len(index):,}"


def _shared(runs: Sequence[SampleOutcomes]) -> NDArray[np.int64]:
    """Return the places in the data set that all runs have."""
    shared = runs[0].index
    for run in runs[1:]:
        shared = np.intersect1d(shared, run.index)
    return shared


def p_value(value: float) -> str:
    """Return a p-value with two digits."""
    return "below 0.0001" if value < 1e-4 else f"{value:.2g}"


def _between(value: float, low: float, high: float) -> str:
    return f"{points(value)} [{points(low)}, {points(high)}]"


def _size(fraction: float) -> str:
    return f"{100 * fraction:g}"


def _signed(radius: float) -> str:
    return f"{radius:+.3f}".replace("-", "−")


def _radius(radii: NDArray[np.float64]) -> str:
    low, high = mean_interval(radii)
    return f"{radii.mean():.3f} [{low:.3f} – {high:.3f}]"
