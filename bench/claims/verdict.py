"""Whether a measured accuracy agrees with a published one.

Three things make two honest numbers differ: which samples were drawn (an exact test, given the
sample), luck of the attack (its spread from seed to seed) and rounding in print. A difference
counts only if it is beyond all three.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from scipy.stats import binom

from bench.statistics import (
    anytime_interval,
    anytime_p_value,
    claim_p_value,
    exact_binomial_interval,
    exact_hypergeometric_interval,
    mcnemar_p_value,
    required_sample_size,
)
from bench.statistics.comparison import SIGNIFICANCE
from bench.statistics.intervals import Interval
from bench.store.manifest import Selection

Outcome = Literal[
    "reproduced", "lower than published", "higher than published", "not measured", "cannot tell"
]

ATTACK_SPREAD = 0.001
"""Seeds move an attack's number by so much, as a fraction, where no runs of several seeds say more.
A convention: two samples of ten thousand are nothing, a tenth of a point is all that may pass."""
CLEAN_SPREAD = 0.0005
"""Clean accuracy has no luck, but other devices round otherwise on a few near-ties."""
PRINTED_ROUNDING = 0.5e-4
"""RobustBench prints two decimals of a percentage."""
HIGHER = (
    "usually a weaker attack or fewer samples than where it was published; more of either may "
    "bring it down"
)


@dataclass(frozen=True)
class Published:
    """A number that is said to hold.

    Attributes:
        accuracy: a fraction.
        population: samples that it was measured on.
        rounding: half a unit of its last printed digit, a fraction.
    """

    accuracy: float
    population: int
    rounding: float = 0.0

    def nearest(self, accuracy: float) -> int:
        """Return the count nearest to `accuracy` among those that print as the same number."""
        low = round((self.accuracy - self.rounding) * self.population)
        high = round((self.accuracy + self.rounding) * self.population)
        return min(max(round(accuracy * self.population), low, 0), high, self.population)


@dataclass(frozen=True)
class Verdict:
    """What a comparison came to; `p_value` and `interval` are None where nothing was measured."""

    outcome: Outcome
    note: str = ""
    p_value: float | None = None
    interval: Interval | None = None


def compare_with_sample(
    published: Published,
    successes: int,
    n: int,
    selection: Selection,
    spread: float,
    assume_exchangeable: bool = False,
) -> Verdict:
    """Hold a count on some of the published number's samples against it.

    Args:
        successes: among the `n` samples that were evaluated.
        selection: how they were chosen.
        spread: differences up to this, a fraction, are none.
        assume_exchangeable: take the first n for a random sample.
    """
    population = published.population
    claimed = published.nearest(successes / n)
    if n > population:
        return Verdict(
            "cannot tell",
            f"the published number is of {population} samples",
            interval=exact_binomial_interval(successes, n),
        )
    if selection.round is not None:
        p_value = anytime_p_value(claimed, successes, n, population)
        interval = anytime_interval(successes, n, population)
    elif n == population or selection.kind == "random" or assume_exchangeable:
        p_value = claim_p_value(claimed, successes, n, population)
        interval = exact_hypergeometric_interval(successes, n, population)
    else:
        return Verdict(
            "cannot tell",
            f"the first {n} are no random sample: --sample random with n >= "
            f"{required_sample_size(claimed, population)} would do, or --assume-exchangeable",
            interval=exact_binomial_interval(successes, n),
        )
    difference = successes / n - published.accuracy
    if p_value < SIGNIFICANCE and abs(difference) > spread + published.rounding:
        return _different(difference, p_value, interval)
    needed = required_sample_size(claimed, population)
    if n < min(needed, population):
        note = f"n too small (n >= {needed} would do)"
        return Verdict("cannot tell", note, p_value, interval)
    note = "within the spread from seed to seed" if p_value < SIGNIFICANCE else ""
    return Verdict("reproduced", note, p_value, interval)


def compare_same_samples(
    lost: int, gained: int, n: int, spread: float, paired: bool = True
) -> Verdict:
    """Hold two runs on the very same samples against each other.

    No chance of sampling is left, only luck: a sample changes sides with probability `spread` at
    most. Losses, or gains, that are more than that explains count as a difference. (That two
    candidates do equally well in general is another question, which McNemar's test answers: a
    changed candidate may lose and gain so many samples that the net loss could be chance, and is a
    changed candidate all the same.)

    Args:
        lost: samples that stood in the published run and fall in the measured one; where only
            counts are known, how many fewer stand.
        gained: the other way round.
        n: samples of both.
        spread: how likely a sample changes sides by luck, and differences up to which are none.
        paired: whether `lost` and `gained` are known by sample.
    """
    difference = (gained - lost) / n
    p_value = float(binom.sf(max(lost, gained) - 1, n, spread)) if lost != gained else 1.0
    note = ""
    if paired and lost + gained:
        mcnemar = mcnemar_p_value(lost, gained)
        note = f"paired by sample: {lost} lost, {gained} gained, McNemar's p = {mcnemar:.2g}"
    if p_value < SIGNIFICANCE and abs(difference) > spread:
        found = _different(difference, p_value, None)
        return replace(found, note="; ".join(filter(None, (note, found.note))))
    return Verdict("reproduced", note, p_value)


def _different(difference: float, p_value: float, interval: Interval | None) -> Verdict:
    if difference < 0:
        return Verdict("lower than published", "", p_value, interval)
    return Verdict("higher than published", HIGHER, p_value, interval)
