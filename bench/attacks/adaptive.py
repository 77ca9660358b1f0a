"""Attacks that know the defence: what protocol `adaptive` adds to standard AutoAttack.

Each needs something of a candidate: that it is a mix, that its mix has a mixing network, that its
graph has places where gradients stop, or that it is random. Restarts and targets keep to the few
likeliest, since every attack here runs on what all of AutoAttack left standing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from bench.attacks.distances import Norm
from bench.attacks.losses import LOSSES, Loss, is_targeted, loss_for
from bench.attacks.mix_apgd import MixAPGD
from bench.attacks.mix_losses import (
    MixLoss,
    on_accurate_base,
    on_mix,
    on_other_weight,
    on_robust_base,
    probability_margin,
    towards_accurate_base,
)

PUSHES = (0.25, 0.5, (0.0, 1.0))
"""By restart: how much of the loss pushes alpha down; the last is drawn for each sample."""

Phases = Callable[[Loss], Sequence[MixLoss]]


def mix_apgd(
    loss: str, phases: Phases, weights: Sequence[float | tuple[float, float]] = (0.0,)
) -> Callable[[Norm, float, int, Mapping[str, int]], tuple[MixAPGD, str]]:
    """What makes a `MixAPGD` for a threat model, and names the loss that it uses."""

    def make(
        norm: Norm, eps: float, classes: int, parameters: Mapping[str, int]
    ) -> tuple[MixAPGD, str]:
        used = loss_for(loss, classes)
        attack = MixAPGD(
            norm,
            eps,
            phases(LOSSES[used]),
            targeted=is_targeted(used),
            steps=parameters["steps"],
            weights=weights,
        )
        return attack, used

    return make


def pushed(loss: Loss) -> Sequence[MixLoss]:
    """Against the mix and its weight at once."""
    return (towards_accurate_base(loss),)


def margin_of_probabilities(loss: Loss) -> Sequence[MixLoss]:
    """Against the margin of the mix's probabilities, whatever the loss."""
    return (probability_margin,)


def accurate_base_first(loss: Loss) -> Sequence[MixLoss]:
    """Against the accurate base alone, then from there against the mix."""
    return (on_accurate_base(loss), on_mix(loss))


def robust_base_first(loss: Loss) -> Sequence[MixLoss]:
    """Against the robust base alone, then from there against the mix."""
    return (on_robust_base(loss), on_mix(loss))


def other_weight_first(loss: Loss) -> Sequence[MixLoss]:
    """Against the mix at another weight, then from there against the mix itself."""
    return (on_other_weight(loss), on_mix(loss))
