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

Conclusion = Literal[
    "reproduced", "lower than published", "higher than published", "not measured", "cannot tell"
]

ATTACK_SPREAD = 0.001
"""Largest difference, a fraction, put down to an attack's seed if no runs of several seeds are
known. By convention a tenth of a percentage point."""
CLEAN_SPREAD = 0.0005
"""Clean accuracy does not depend on a seed, but devices round differently on a few near-ties."""
PRINTED_ROUNDING = 0.5e-4
"""RobustBench prints two decimals of a percentage."""
HIGHER = (
    "usually a weaker attack or fewer samples than the published evaluation; a stronger attack or "
    "more samples may lower it"
)


@dataclass(frozen=True)
class Published:
    """A published number.

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
    """The result of a comparison; `p_value` and `interval` are None if nothing was measured."""

    outcome: Conclusion
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
    """Compare a count on some of a published number's samples with that number.

    Args:
        successes: among the `n` samples that were evaluated.
        selection: how they were chosen.
        spread: differences up to this fraction are ignored.
        assume_exchangeable: treat the first n as a random sample.
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
            f"the first {n} are not a random sample: use --sample random with n >= "
            f"{required_sample_size(claimed, population)}, or --assume-exchangeable",
            interval=exact_binomial_interval(successes, n),
        )
    difference = successes / n - published.accuracy
    if p_value < SIGNIFICANCE and abs(difference) > spread + published.rounding:
        return _different(difference, p_value, interval)
    needed = required_sample_size(claimed, population)
    if n < min(needed, population):
        note = f"n too small (n >= {needed} is enough)"
        return Verdict("cannot tell", note, p_value, interval)
    note = "within the spread from seed to seed" if p_value < SIGNIFICANCE else ""
    return Verdict("reproduced", note, p_value, interval)


def compare_same_samples(
    lost: int, gained: int, n: int, spread: float, paired: bool = True
) -> Verdict:
    """Compare two runs on the same samples.

    There is no sampling error, only the randomness of the attacks: each sample changes sides with
    probability `spread` at most. More losses, or more gains, than that explains count as a
    difference. McNemar's test answers another question, whether two candidates do equally well in
    general: a changed candidate may lose and gain so many samples that the net loss could be
    chance.

    Args:
        lost: samples robust in the published run and broken in the measured one; if only counts
            are known, how many fewer are robust.
        gained: the other way round.
        n: samples of both.
        spread: how likely a sample changes sides by chance; differences up to it are ignored.
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
