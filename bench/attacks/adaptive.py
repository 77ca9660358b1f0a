"""Attacks that know the defence: what protocol `adaptive` adds to standard AutoAttack.

Each needs something of a candidate: that it is a mix, that its mix has a mixing network, that its
graph has places where gradients stop, or that it is random. Restarts and targets keep to the few
likeliest, since every attack here runs on what all of AutoAttack left standing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

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
from bench.attacks.registry import AttackPlan, AttackRequest, Definition, register_attack
from bench.attacks.standard import apgd_on

_PUSHES = (0.25, 0.5, (0.0, 1.0))
"""By restart: how much of the loss pushes alpha down; the last is drawn for each sample."""

_FEW_TARGETS = {"steps": 100, "targets": 3, "restarts": 1}


def _on_mix(
    loss: str,
    phases: Callable[[Loss], Sequence[MixLoss]],
    weights: Sequence[float | tuple[float, float]] = (0.0,),
) -> Callable[[AttackRequest], AttackPlan]:
    """Return what builds Auto-PGD on a mix's parts.

    Args:
        loss: a name of `LOSSES`.
        phases: from that loss to what is ascended, phase after phase.
        weights: see `MixAPGD`.
    """

    def build(request: AttackRequest) -> AttackPlan:
        used = loss_for(loss, request.classes)
        attack = MixAPGD(
            request.norm,
            request.eps,
            phases(LOSSES[used]),
            targeted=is_targeted(used),
            steps=request.parameters["steps"],
            weights=weights,
        )
        return request.plan(attack, loss=used, view="mix")

    return build


def _pushed(loss: Loss) -> Sequence[MixLoss]:
    """Ascend the mix's loss and push its weight down at once."""
    return (towards_accurate_base(loss),)


def _margin_of_probabilities(loss: Loss) -> Sequence[MixLoss]:
    """Ascend the margin of the mix's probabilities, whatever the loss."""
    return (probability_margin,)


def _accurate_base_first(loss: Loss) -> Sequence[MixLoss]:
    """Attack the accurate base alone, then from there the mix."""
    return (on_accurate_base(loss), on_mix(loss))


def _robust_base_first(loss: Loss) -> Sequence[MixLoss]:
    """Attack the robust base alone, then from there the mix."""
    return (on_robust_base(loss), on_mix(loss))


def _other_weight_first(loss: Loss) -> Sequence[MixLoss]:
    """Attack the mix at another weight, then from there the mix itself."""
    return (on_other_weight(loss), on_mix(loss))


register_attack(
    "apgd-alpha-ce",
    Definition(
        "Auto-PGD on the cross-entropy and on a mix's weight (Bai et al. 2024)",
        {"steps": 100, "restarts": len(_PUSHES)},
        _on_mix("ce", _pushed, _PUSHES),
        "mixing network",
    ),
)
register_attack(
    "apgd-alpha-t",
    Definition(
        "Auto-PGD on targeted DLR and on a mix's weight (Bai et al. 2024)",
        {"steps": 100, "targets": 3, "restarts": len(_PUSHES)},
        _on_mix("dlr-targeted", _pushed, _PUSHES),
        "mixing network",
    ),
)
register_attack(
    "apgd-mix-margin",
    Definition(
        "Auto-PGD on the margin of a mix's probabilities",
        {"steps": 100, "restarts": 1},
        _on_mix("margin", _margin_of_probabilities),
        "mix",
    ),
)
register_attack(
    "apgd-accurate",
    Definition(
        "Auto-PGD on a mix's accurate base alone, then from there on the mix",
        _FEW_TARGETS,
        _on_mix("dlr-targeted", _accurate_base_first),
        "mix",
    ),
)
register_attack(
    "apgd-robust",
    Definition(
        "Auto-PGD on a mix's robust base alone, then from there on the mix",
        _FEW_TARGETS,
        _on_mix("dlr-targeted", _robust_base_first),
        "mix",
    ),
)
register_attack(
    "apgd-other-alpha",
    Definition(
        "Auto-PGD on the mix at another weight, then from there on the mix",
        _FEW_TARGETS,
        _on_mix("dlr-targeted", _other_weight_first, ((0.0, 1.0),)),
        "mix",
    ),
)
register_attack(
    "apgd-straight-through",
    Definition(
        "Auto-PGD with a stand-in where gradients stop (BPDA, Athalye et al. 2018)",
        _FEW_TARGETS,
        apgd_on("dlr-targeted", "straight-through"),
        "stopped gradient",
    ),
)
register_attack(
    "apgd-expectation",
    Definition(
        "Auto-PGD on the mean over a candidate's draws (EOT, Athalye et al. 2018)",
        _FEW_TARGETS,
        apgd_on("dlr-targeted", "expectation"),
        "randomness",
    ),
)
register_attack(
    "apgd-expectation-ce",
    Definition(
        "Auto-PGD on the cross-entropy of the mean over a candidate's draws (EOT)",
        {"steps": 100, "restarts": 1},
        apgd_on("ce", "expectation"),
        "randomness",
    ),
)
register_attack(
    "apgd-expectation-dlr",
    Definition(
        "Auto-PGD on DLR of the mean over a candidate's draws (EOT)",
        {"steps": 100, "restarts": 1},
        apgd_on("dlr", "expectation"),
        "randomness",
    ),
)
