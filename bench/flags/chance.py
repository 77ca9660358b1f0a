"""A clean accuracy at chance level: data and network probably do not fit."""

from __future__ import annotations

from scipy.stats import binom

from bench.statistics.excess import CHANCE, beyond_chance
from bench.store.summary import Flag


def chance_level(correct: int, n: int, classes: int) -> Flag | None:
    """Flag a clean accuracy that is not significantly above one in K (exact binomial test).

    Few samples raise no flag: a classifier halfway between guessing and perfection must pass the
    test with a probability of 99%.

    Args:
        correct: samples that are right without attack.
        n: samples in all.
        classes: K.
    """
    guessing = 1 / classes
    halfway = (1 + guessing) / 2
    needed = binom.isf(CHANCE, n, guessing) + 1
    if beyond_chance(correct, n, guessing) or binom.cdf(needed - 1, n, halfway) > CHANCE:
        return None
    return Flag(
        name="chance-level-accuracy",
        measured=correct / n,
        threshold=guessing,
        meaning=f"The clean accuracy is no better than guessing one of {classes} classes, so the "
        "robust accuracy says nothing about a trained network.",
        advice="Do the inputs need normalization? Flag missing-normalization says it where one of "
        "the usual ones helps. Else check the order of the classes (`class_order` in the suite's "
        "data), the range and channels of the images, and the weights.",
    )
