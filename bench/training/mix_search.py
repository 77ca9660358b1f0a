"""Chooses the numbers of a mix on held-out images: the most accurate that is robust enough.

What a mix with other numbers says of an image follows from what its bases and its mixing network
say of it, without another pass. So every setting is judged on every image that any attack has found
so far, and only a setting that stands all of them is attacked itself: by attacks of few steps, then
by one as long as AutoAttack's. Few steps alone would favour settings whose gradients are steep.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bench.attacks.apgd import APGD
from bench.attacks.attack import attack_samples
from bench.attacks.losses import LOSSES, is_targeted, loss_for
from bench.attacks.mix_apgd import MixAPGD
from bench.attacks.mix_losses import towards_accurate_base
from bench.candidates.mix import MixedClassifier, scaled_log_softmax
from bench.decision import answered, classes_of
from bench.errors import InputError
from bench.suites.suite import ThreatModel
from bench.training.mix_settings import MixSettings
from bench.training.progress import ProgressCallback, TriedNumbers, ignore

BATCH_SIZE = 250
PUSH = 0.5
"""Weight of the push towards the accurate base, in the attacks that have one."""

Numbers = dict[str, float]
"""Arguments of a mix: `alpha`, or `alpha_scale`, `alpha_bias`, `gamma_scale` and `gamma_bias`; and
`accurate_scale`, `robust_scale`."""


@dataclass(frozen=True)
class Choice:
    """The numbers chosen, and what was seen of them on the held-out images.

    Attributes:
        numbers: Of the mix.
        clean_accuracy: Of the mix, as a fraction.
        attacked_accuracy: Of the mix: right on every image found for it or for another setting.
        robust_clean_accuracy: Of the robust base.
        robust_attacked_accuracy: Of the robust base, under the same attacks on itself.
        settings: How many there were to choose from.
        attacked: How many of them were attacked.
    """

    numbers: Numbers
    clean_accuracy: float
    attacked_accuracy: float
    robust_clean_accuracy: float
    robust_attacked_accuracy: float
    settings: int
    attacked: int

    def record(self, images: int) -> dict[str, Any]:
        """For a submission: plain values, rounded; without the numbers themselves."""
        return {
            "choice": {
                "held_out_images": images,
                "clean_accuracy": round(self.clean_accuracy, 4),
                "attacked_accuracy": round(self.attacked_accuracy, 4),
                "robust_base_clean_accuracy": round(self.robust_clean_accuracy, 4),
                "robust_base_attacked_accuracy": round(self.robust_attacked_accuracy, 4),
                "settings_to_choose_from": self.settings,
                "settings_attacked": self.attacked,
            }
        }


@dataclass(frozen=True)
class Answers:
    """What a mix's parts say of N images.

    Attributes:
        accurate: (N, K) log-probabilities of the accurate base, unscaled.
        robust: (N, K) likewise.
        gamma: (N,) of the mixing network, with scale 1 and bias 0; None if the weight is fixed.
    """

    accurate: Tensor
    robust: Tensor
    gamma: Tensor | None

    def right(self, grid: Sequence[Numbers], labels: Tensor) -> Tensor:
        """(S, N) whether mixes with each of S numbers give the labels (N,).

        A mix is right where its weight lies in an interval that depends on the scales alone.
        """
        result = torch.empty(len(grid), len(labels), dtype=torch.bool, device=labels.device)
        by_scales: dict[tuple[float, float], list[int]] = {}
        for row, numbers in enumerate(grid):
            scales = numbers["accurate_scale"], numbers["robust_scale"]
            by_scales.setdefault(scales, []).append(row)
        for (accurate, robust), rows in by_scales.items():
            low, high = right_weights(
                scaled_log_softmax(self.accurate, accurate).exp(),
                scaled_log_softmax(self.robust, robust).exp(),
                labels,
            )
            alpha = self._weights([grid[row] for row in rows])
            result[rows] = (alpha > low) & (alpha < high)
        return result

    def _weights(self, grid: Sequence[Numbers]) -> Tensor:
        """(S, N) or (S, 1), each mix's weights of the robust base."""

        def column(name: str) -> Tensor:
            return self.robust.new_tensor([[numbers[name]] for numbers in grid])

        if self.gamma is None:
            return column("alpha")
        gamma = column("gamma_scale") * self.gamma + column("gamma_bias")
        return column("alpha_scale") * torch.sigmoid(gamma) + column("alpha_bias")


def right_weights(accurate: Tensor, robust: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The open interval of weights with which a mix gives the labels.

    The label leads class i by (1 - alpha) d_g + alpha d_h, with its leads d_g and d_h in the bases:
    linear in alpha, so that each class bounds alpha on one side.

    Args:
        accurate: (N, K) probabilities of the accurate base.
        robust: (N, K) probabilities of the robust base.
        labels: (N,) int64.

    Returns:
        Lower and upper ends (N,), not bounded by 0 and 1; the lower one is above the upper one, or
        at it, where no weight is right. None is where a base's probabilities are not finite.
    """
    column = labels.unsqueeze(1)
    lead = accurate.gather(1, column) - accurate
    slope = robust.gather(1, column) - robust - lead
    crossing = -lead / slope
    is_other = torch.ones_like(accurate, dtype=torch.bool).scatter(1, column, False)
    low = crossing.where(is_other & (slope > 0), float("-inf")).amax(dim=1)
    high = crossing.where(is_other & (slope < 0), float("inf")).amin(dim=1)
    never = (is_other & (slope == 0) & (lead <= 0)).any(dim=1)
    never |= ~(answered(accurate) & answered(robust))
    return low.masked_fill(never, float("inf")), high


def choose(
    make: Callable[[Numbers], MixedClassifier],
    neutral: Numbers,
    grid: Sequence[Numbers],
    images: Tensor,
    labels: Tensor,
    threat_model: ThreatModel,
    settings: MixSettings,
    seed: int,
    progress: ProgressCallback = ignore,
) -> Choice:
    """The numbers with the highest clean accuracy among those that are robust enough.

    Robust enough: the attacked accuracy is at most `settings.allowed_loss` below that of the robust
    base. Of equally accurate ones the one that more images stand is tried first.

    Args:
        make: From numbers to the mix, in eval mode. One mix is used at a time.
        neutral: Numbers of a mix whose bases have scale 1, whose gamma has scale 1 and bias 0.
        grid: Numbers to choose from.
        images: (N, C, H, W) held-out images.
        labels: (N,) int64.
        threat_model: Of the attacks.
        settings: Of the choice.
        seed: Of the attacks' draws.
        progress: Called for the robust base, then for each of the numbers that were attacked.

    Raises:
        InputError: If no numbers of the grid are robust enough.
    """

    def right(found: Tensor, samples: Tensor) -> Tensor:
        """(S, n) whether each setting is right on images (n, ...) of samples (n,)."""
        return _answers(make(neutral), found).right(grid, labels[samples])

    everyone = torch.arange(len(labels), device=labels.device)
    standing = right(images, everyone)
    clean = standing.double().mean(dim=1)
    robust = make(neutral).at_alpha(1.0)
    with torch.no_grad():
        of_robust = torch.cat([robust(some) for some in torch.split(images, BATCH_SIZE)])
    robust_standing = classes_of(of_robust) == labels
    robust_clean = float(robust_standing.double().mean())
    classes = of_robust.shape[1]
    for attack in (
        *_attacks_on_network(threat_model, settings, classes),
        _final_attack(threat_model, settings, classes),
    ):
        found, samples = attack(robust, images, labels, robust_standing, seed)
        robust_standing[samples] = False
        standing[:, samples] &= right(found, samples)
    robust_attacked = float(robust_standing.double().mean())
    least = robust_attacked - settings.allowed_loss
    progress(TriedNumbers({}, robust_clean, robust_attacked, least, True))
    tried = torch.zeros_like(clean, dtype=torch.bool)
    while True:
        attacked = standing.double().mean(dim=1)
        # Accuracies are multiples of 1/N: half of one is no difference.
        possible = ((attacked >= least - 0.5 / len(labels)) & ~tried).nonzero().flatten()
        if not len(possible):
            raise InputError(
                f"no setting of {len(grid)} keeps {least:.2%} of the held-out images right under "
                "attack; raise allowed_loss, or add settings nearer to the robust base"
            )
        order = clean[possible] + attacked[possible] / (2 * len(labels))
        best = int(possible[order.argmax()])
        tried[best] = True
        for attack in _attacks_on_mix(make(neutral), threat_model, settings, classes):
            found, samples = attack(make(grid[best]), images, labels, standing[best], seed)
            standing[:, samples] &= right(found, samples)
            standing[best, samples] = False
            left = float(standing[best].double().mean())
            is_robust_enough = left >= least - 0.5 / len(labels)
            if not is_robust_enough:
                break
        progress(TriedNumbers(grid[best], float(clean[best]), left, least, is_robust_enough))
        if is_robust_enough:
            return Choice(
                numbers=grid[best],
                clean_accuracy=float(clean[best]),
                attacked_accuracy=left,
                robust_clean_accuracy=robust_clean,
                robust_attacked_accuracy=robust_attacked,
                settings=len(grid),
                attacked=int(tried.sum()),
            )


SearchAttack = Callable[[MixedClassifier, Tensor, Tensor, Tensor, int], tuple[Tensor, Tensor]]
"""From a mix, all images, their labels, which of them (N,) to attack, and a seed to the adversarial
images found (n, ...) and the samples (n,) that they belong to."""


def _attacks_on_network(
    threat_model: ThreatModel, settings: MixSettings, classes: int
) -> list[SearchAttack]:
    """Auto-PGD on the cross-entropy and on targeted DLR, on a mix's answer alone."""
    return [
        _apgd(name, threat_model, settings.search_steps, settings.search_targets)
        for name in ("ce", loss_for("dlr-targeted", classes))
    ]


def _final_attack(threat_model: ThreatModel, settings: MixSettings, classes: int) -> SearchAttack:
    """Auto-PGD on targeted DLR, with the full budget."""
    name = loss_for("dlr-targeted", classes)
    return _apgd(name, threat_model, settings.final_steps, settings.final_targets, "final")


def _apgd(
    loss: str, threat_model: ThreatModel, steps: int, targets: int, prefix: str = "choice"
) -> SearchAttack:
    targeted = is_targeted(loss)
    attack = APGD(threat_model.norm, threat_model.eps, LOSSES[loss], targeted=targeted, steps=steps)
    return _search_attack(f"{prefix}-{loss}", attack, targets if targeted else 0)


def _attacks_on_mix(
    mix: MixedClassifier, threat_model: ThreatModel, settings: MixSettings, classes: int
) -> list[SearchAttack]:
    """The same, on an adaptive mix also with a push towards its accurate base; then the final."""
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
        outcome = attack_samples(
            attack,
            mix,
            images[samples],
            labels[samples],
            name=name,
            targets=targets,
            seed=seed,
            indices=samples,
        )
        return outcome.images[outcome.broken], samples[outcome.broken]

    return search


@torch.no_grad()
def _answers(mix: MixedClassifier, images: Tensor) -> Answers:
    answers = [mix.answer(some) for some in torch.split(images, BATCH_SIZE)]
    return Answers(
        torch.cat([each.accurate for each in answers]),
        torch.cat([each.robust for each in answers]),
        torch.cat([each.gamma for each in answers if each.gamma is not None])
        if mix.has_mixing_network
        else None,
    )
