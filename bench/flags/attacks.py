"""Flags on what the attacks of a run did."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from bench.statistics.excess import beyond_chance
from bench.store.summary import AttackSummary, Convergence, Flag

SQUARE_THRESHOLD = 0.002
ITERATION_THRESHOLD = 0.01


def square_beats_gradients(attacks: Sequence[AttackSummary], n: int) -> Flag | None:
    """Flag samples that Square, which sees no gradient, broke after the gradient attacks.

    AutoAttack warns above 0.2% of the samples; here the excess must be more than chance, too.

    Args:
        attacks: in their order.
        n: samples of the run.
    """
    for before, after in itertools.pairwise(attacks):
        broken = round((before.accuracy_after - after.accuracy_after) * n)
        if after.name == "square" and beyond_chance(broken, n, SQUARE_THRESHOLD):
            return Flag(
                name="square-beats-gradients",
                measured=broken / n,
                threshold=SQUARE_THRESHOLD,
                meaning="Square, a query attack without gradients, lowered the accuracy further "
                "after the gradient attacks: their gradients are probably masked.",
                advice="Run Square with more queries and restarts, or an adaptive attack.",
            )
    return None


def skipped_attacks(names: Sequence[str]) -> Flag | None:
    """Flag attacks of the protocol that could not be run at all.

    Args:
        names: of those that were left out, since the candidate has no gradient.
    """
    if not names:
        return None
    return Flag(
        name="attacks-skipped",
        measured=", ".join(names),
        threshold="none",
        meaning="These attacks need a gradient, and the candidate has none: the robust accuracy is "
        "that of the others alone.",
        advice="Declare a differentiable surrogate and run --protocol adaptive, or run Square with "
        "more queries and restarts.",
    )


def more_iterations_break(broken: int, n: int) -> Flag | None:
    """Flag samples that survived the run's attacks and break under a larger budget.

    Args:
        broken: samples that fell to the larger budget.
        n: samples that it was tried on.
    """
    if not beyond_chance(broken, n, ITERATION_THRESHOLD):
        return None
    return Flag(
        name="more-iterations-break",
        measured=broken / n,
        threshold=ITERATION_THRESHOLD,
        meaning="Gradient attacks with a larger budget break this share of the samples that "
        "survived: the run's attacks stopped before they converged.",
        advice="Run --until-converged, or the attacks with more steps and restarts.",
    )


def unconverged(convergence: Convergence, standing: int) -> Flag | None:
    """Flag a run whose last doubling of the budget still broke many samples.

    Args:
        convergence: what the doublings brought.
        standing: samples that survived all of them.
    """
    last = convergence.shares_broken[-1] if convergence.shares_broken else 0.0
    if last >= 1:
        return None  # no sample is left
    before = round(standing / (1 - last))
    return more_iterations_break(before - standing, before)
