"""Flags on logits that are not finite, which the finished records count."""

from __future__ import annotations

import pandas as pd

from bench.decision import NO_CLASS
from bench.store.summary import Flag

_ADVICE = (
    "Find the operation (a division by 0, the logarithm of 0, an overflow in half precision) and "
    "guard it; until then such answers tell of that operation, not of the defence."
)


def non_finite_logits(samples: pd.DataFrame) -> Flag | None:
    """Return the flag on clean and adversarial images whose logits are not finite, if any is.

    Args:
        samples: of an evaluation or a sweep; in a sweep a sample counts once, whatever the number
            of weights at which the mix has no answer.
    """
    broken = samples["broken_by"].notna()
    clean = samples.loc[samples["clean_prediction"] == NO_CLASS, "index"].nunique()
    adversarial = samples["adversarial_prediction"] == NO_CLASS
    attacked = samples.loc[broken & adversarial.fillna(False), "index"].nunique()
    if clean + attacked == 0:
        return None
    return Flag(
        name="non-finite-logits",
        measured=f"{clean} of {samples['index'].nunique()} clean images, {attacked} of "
        f"{samples.loc[broken, 'index'].nunique()} adversarial images",
        threshold="none",
        meaning="The logits of so many images hold NaN or infinity, which is no class (-1 in the "
        "tables): a clean image counts as wrong, an adversarial one breaks its sample, whatever "
        "the label is.",
        advice=_ADVICE,
    )


def non_finite_votes(without_class: float, draws: float) -> Flag | None:
    """Return the flag on draws of a certification whose logits are not finite, if any is.

    Args:
        without_class: how many draws voted for no class.
        draws: how many there were.
    """
    if without_class == 0:
        return None
    return Flag(
        name="non-finite-logits",
        measured=f"{without_class:.0f} of {draws:.0f} draws",
        threshold="none",
        meaning="The logits of so many noisy images hold NaN or infinity, which is no class: such "
        "a draw votes against every class, so that certificates hold, but are smaller.",
        advice=_ADVICE,
    )
