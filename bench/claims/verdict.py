"""Whether a measured accuracy agrees with a published one.

Two honest numbers can differ for three reasons: the samples that were drawn (which an exact test
accounts for), the randomness of the attack (its spread from seed to seed) and rounding in print. A
difference counts only if it exceeds all three.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

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
"""Largest difference, a fraction, that is attributed to an attack's seed if no runs with several
seeds are known: a tenth of a percentage point, by convention."""
CLEAN_SPREAD = 0.0005
"""Clean accuracy does not depend on a seed, but devices round near-ties differently."""
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
        population: number of samples that it was measured on.
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
        successes: number of successes among the `n` samples that were evaluated.
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

    There is no sampling error, only the randomness of the attacks: each sample changes its outcome
    with probability `spread` at most. More losses or gains than that explains count as a
    difference. McNemar's test answers another question, whether two candidates are equally good in
    general: a changed candidate may lose and gain so many samples that the net loss could be
    chance.

    Args:
        lost: number of samples that are robust in the published run and broken in the measured one;
            if only the accuracies are known, by how many the robust samples decreased.
        gained: the same in the other direction.
        n: number of samples of both runs.
        spread: probability that a sample changes its outcome by chance; differences up to it are
            ignored.
        paired: whether `lost` and `gained` were counted sample by sample.
    """
    from scipy.stats import binom  # slow to import

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
