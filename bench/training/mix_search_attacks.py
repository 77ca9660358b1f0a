"""The attacks of a choice of a mix's numbers: of few steps, then one as long as AutoAttack's."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bench.attacks.attack import attack_samples
from bench.attacks.auto_pgd import APGD
from bench.attacks.losses import LOSSES, is_targeted, loss_for
from bench.attacks.mix_apgd import MixAPGD
from bench.attacks.mix_losses import towards_accurate_base
from bench.candidates.mix import MixedClassifier
from bench.memory.out_of_memory import ImagesAtOnce
from bench.suites.suite import ThreatModel
from bench.training.mix import MixSettings

PUSH = 0.5
"""Weight of the push towards the accurate base, in the attacks that have one."""

SearchAttack = Callable[[MixedClassifier, Tensor, Tensor, Tensor, int], tuple[Tensor, Tensor]]
"""From a mix, all images, their labels, a mask (N,) of those to attack, and a seed to the
adversarial images found (n, ...) and the indices (n,) of their samples."""


def _attacks_on_network(
    threat_model: ThreatModel, settings: MixSettings, classes: int
) -> list[SearchAttack]:
    """Return Auto-PGD on the cross-entropy and on targeted DLR of a mix's output."""
    return [
        _apgd(name, threat_model, settings.search_steps, settings.search_targets)
        for name in ("ce", loss_for("dlr-targeted", classes))
    ]


def _final_attack(threat_model: ThreatModel, settings: MixSettings, classes: int) -> SearchAttack:
    """Return Auto-PGD on targeted DLR, with the full budget."""
    name = loss_for("dlr-targeted", classes)
    return _apgd(name, threat_model, settings.final_steps, settings.final_targets, "final")


def _apgd(
    loss: str, threat_model: ThreatModel, steps: int, targets: int, prefix: str = "choice"
) -> SearchAttack:
    targeted = is_targeted(loss)
    attack = APGD(threat_model.norm, threat_model.eps, LOSSES[loss], targeted=targeted, steps=steps)
    return _search_attack(f"{prefix}-{loss}", attack, targets if targeted else 0)


def attacks_on_base(
    threat_model: ThreatModel, settings: MixSettings, classes: int
) -> list[SearchAttack]:
    """Return the attacks on the robust base: these, and the last."""
    last = _final_attack(threat_model, settings, classes)
    return [*_attacks_on_network(threat_model, settings, classes), last]


def attacks_on_mix(
    mix: MixedClassifier, threat_model: ThreatModel, settings: MixSettings, classes: int
) -> list[SearchAttack]:
    """Return the attacks on a base, for an adaptive mix also with a push to its accurate base."""
    attacks = _attacks_on_network(threat_model, settings, classes)
    if mix.has_mixing_network:
        attacks += [
            _search_attack(
                f"choice-pushed-{name}",
                MixAPGD(
                    threat_model.norm,
                    threat_model.eps,
                    [towards_accurate_base(LOSSES[name])],
                    targeted=is_targeted(name),
                    steps=settings.search_steps,
                    weights=[PUSH],
                ),
                settings.search_targets if is_targeted(name) else 0,
            )
            for name in ("ce", loss_for("dlr-targeted", classes))
        ]
    return [*attacks, _final_attack(threat_model, settings, classes)]


def _search_attack(name: str, attack: APGD, targets: int) -> SearchAttack:
    def search(
        mix: MixedClassifier, images: Tensor, labels: Tensor, chosen: Tensor, seed: int
    ) -> tuple[Tensor, Tensor]:
        samples = chosen.nonzero().flatten()

        def found(part: Tensor) -> tuple[Tensor, Tensor]:
            outcome = attack_samples(
                attack,
                mix,
                images[part],
                labels[part],
                name=name,
                targets=targets,
                seed=seed,
                indices=part,
            )
            return outcome.images[outcome.broken], part[outcome.broken]

        parts = ImagesAtOnce(max(1, len(samples))).in_parts(samples, found)
        broken, rows = zip((images[:0], samples[:0]), *parts, strict=True)
        return torch.cat(broken), torch.cat(rows)

    return search
