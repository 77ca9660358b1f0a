"""What fresh votes at an image inside a certified radius say of the certificate.

Within the radius the certified class has at least half of a smoothed classifier's votes (Cohen et
al. 2019, arXiv 1902.02918); in a mix that gives them the weight alpha, it leads each other class by
at least (1 - alpha) / alpha of them. Votes that have less contradict the certificate.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import binom

from bench.statistics.clopper_pearson import clopper_pearson_lower, clopper_pearson_upper
from bench.statistics.excess import beyond_chance
from bench.store.records import IntArray

FAILURE_PROBABILITY = 0.001
"""The largest probability that votes contradict a certificate that holds."""
USUAL_FAILURE_PROBABILITY = 0.001
"""The probability that a certificate is wrong, in the suites and in the papers."""


def contradicts(votes: IntArray, certified: int, alpha: float | None) -> bool:
    """Return whether votes at an image contradict that a class is certified there.

    Args:
        votes: (K + 1,) how many draws vote for each class, and in the last place for none: no
            answer counts as one more class, as it does in the certificate.
        certified: the class.
        alpha: weight of the votes in a mix; None: they alone decide.

    Returns:
        True for a certificate that holds with a probability of at most `FAILURE_PROBABILITY`.
    """
    mine, draws = votes[certified], votes.sum()
    if alpha is None:
        return bool(binom.cdf(mine, draws, 0.5) < FAILURE_PROBABILITY)
    # The largest rival is found in these votes, so that each might have been it: Bonferroni.
    share = FAILURE_PROBABILITY / len(votes)
    rival = np.delete(votes, certified).max()
    most = clopper_pearson_upper(mine, draws, share) - clopper_pearson_lower(rival, draws, share)
    return bool(alpha * most < 1 - alpha)


def too_many(
    contradicted: int, n: int, failure_probability: float = USUAL_FAILURE_PROBABILITY
) -> bool:
    """Return whether more certificates are contradicted than certificates and votes may err.

    Args:
        contradicted: how many are, each of another sample.
        n: how many were looked at.
        failure_probability: of a certificate.
    """
    return beyond_chance(contradicted, n, failure_probability + FAILURE_PROBABILITY)
