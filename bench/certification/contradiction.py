"""What fresh votes at an image inside a certified radius say of the certificate.

Within the radius the certified class keeps half of a smoothed classifier's votes (Cohen et al.
2019, arXiv 1902.02918); in a mix that gives them the weight alpha, it leads each other class by
(1 - alpha) / alpha of them. Votes that have less contradict the certificate.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import binom

from bench.statistics.clopper_pearson import clopper_pearson_lower, clopper_pearson_upper
from bench.store.records import IntArray

FAILURE_PROBABILITY = 0.001
"""The probability of an error in one certificate, as in the suites, and in the votes against it."""


def contradicts(votes: IntArray, certified: int, alpha: float | None) -> bool:
    """Return whether votes at an image contradict that a class is certified there.

    Args:
        votes: (K + 1,) how many draws vote for each class, and in the last place for none: no
            answer counts as one more class, as it does in the certificate.
        certified: the class.
        alpha: weight of the votes in a mix; None: they alone decide.

    Returns:
        True for a sound certificate with a probability of at most `FAILURE_PROBABILITY`.
    """
    mine, draws = votes[certified], votes.sum()
    if alpha is None:
        return bool(binom.cdf(mine, draws, 0.5) < FAILURE_PROBABILITY)
    # The largest rival is found in these votes, so that each might have been it: Bonferroni.
    share = FAILURE_PROBABILITY / len(votes)
    rival = np.delete(votes, certified).max()
    most = clopper_pearson_upper(mine, draws, share) - clopper_pearson_lower(rival, draws, share)
    return bool(most < (1 - alpha) / alpha)
