"""The choice of a mix's numbers on held-out images: the most accurate that is robust enough.

The answer of a mix with other numbers follows from the answers of its bases and its mixing network,
without another pass. So every setting is tested on every image that any attack has found so far,
and only a setting that is robust enough on all of them is attacked itself: by attacks of few steps,
then by one as long as AutoAttack's. Few steps alone would favour settings with steep gradients.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bench.attacks.attack import attack_samples
from bench.attacks.auto_pgd import APGD
from bench.attacks.losses import LOSSES, is_targeted, loss_for
from bench.attacks.mix_apgd import MixAPGD
from bench.attacks.mix_losses import towards_accurate_base
from bench.candidates.mix import MixedClassifier, scaled_log_softmax
from bench.decision import answered, classes_of
from bench.errors import InputError
from bench.memory.out_of_memory import ImagesAtOnce
from bench.suites.suite import ThreatModel
from bench.training.choice_file import FILE, ChoiceFile, Found
from bench.training.mix import MixSettings
from bench.training.recipe import Conditions, TriedNumbers

BATCH_SIZE = 250
DECISIVE = {"allowed_loss", "search_steps", "search_targets", "final_steps", "final_targets"}
"""The names of what decides which attacks each of the grid's numbers undergo."""
PUSH = 0.5
"""Weight of the push towards the accurate base, in the attacks that have one."""

MixNumbers = dict[str, float]
"""Arguments of a mix: `alpha`, or `alpha_scale`, `alpha_bias`, `gamma_scale` and `gamma_bias`; and
`accurate_scale`, `robust_scale`."""


@dataclass(frozen=True)
class Choice:
    """The chosen numbers, and their accuracies on the held-out images.

    Attributes:
        numbers: The numbers of the mix.
        clean_accuracy: The mix's clean accuracy, as a fraction.
        attacked_accuracy: The mix's accuracy on the images found for it and for other settings.
        robust_clean_accuracy: The robust base's clean accuracy.
        robust_attacked_accuracy: The robust base's accuracy under the same attacks on itself.
        settings: How many settings there were to choose from.
        attacked: How many of them were attacked.
        seconds: Wall-clock time of the choice, including earlier runs of a resumed one.
    """

    numbers: MixNumbers
    clean_accuracy: float
    attacked_accuracy: float
    robust_clean_accuracy: float
    robust_attacked_accuracy: float
    settings: int
    attacked: int
    seconds: float

    def record(self, images: int) -> dict[str, Any]:
        """Return rounded plain values for a submission, without the numbers themselves."""
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
class PartAnswers:
    """The answers of a mix's parts to N images.

    Attributes:
        accurate: (N, K) unscaled log-probabilities of the accurate base.
        robust: (N, K) unscaled log-probabilities of the robust base.
        gamma: (N,) the mixing network's, with scale 1 and bias 0; None if the weight is fixed.
    """

    accurate: Tensor
    robust: Tensor
    gamma: Tensor | None

    def right(self, grid: Sequence[MixNumbers], labels: Tensor) -> Tensor:
        """Return whether mixes with each of S numbers classify correctly, (S, N) for labels (N,).

        A mix is correct if its weight lies in an interval that depends on the scales alone.
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

    def _weights(self, grid: Sequence[MixNumbers]) -> Tensor:
        """Return each mix's weights of the robust base, (S, N) or (S, 1)."""

        def column(name: str) -> Tensor:
            return self.robust.new_tensor([[numbers[name]] for numbers in grid])

        if self.gamma is None:
            return column("alpha")
        gamma = column("gamma_scale") * self.gamma + column("gamma_bias")
        return column("alpha_scale") * torch.sigmoid(gamma) + column("alpha_bias")


def right_weights(accurate: Tensor, robust: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the open interval of weights with which a mix classifies correctly.

    The label leads class i by (1 - alpha) d_g + alpha d_h, where d_g and d_h are its leads in the
    bases. This is linear in alpha, so that each class bounds alpha on one side.

    Args:
        accurate: (N, K) probabilities of the accurate base.
        robust: (N, K) probabilities of the robust base.
        labels: (N,) int64.

    Returns:
        Lower and upper ends (N,), not limited to [0, 1]. If no weight is correct, or a base's
        probabilities are not finite, the lower end is not below the upper one.
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
    make: Callable[[MixNumbers], MixedClassifier],
    neutral: MixNumbers,
    grid: Sequence[MixNumbers],
    images: Tensor,
    labels: Tensor,
    threat_model: ThreatModel,
    settings: MixSettings,
    conditions: Conditions,
) -> Choice:
    """Return the numbers with the highest clean accuracy among those that are robust enough.

    They are robust enough if the attacked accuracy is at most `settings.allowed_loss` below the
    robust base's. Among equally accurate ones, those with the higher attacked accuracy so far are
    tried first.

    Args:
        make: From numbers to the mix, in eval mode. One mix is used at a time.
        neutral: Numbers with scale 1 for the bases, and scale 1 and bias 0 for gamma.
        grid: Numbers to choose from.
        images: (N, C, H, W) held-out images.
        labels: (N,) int64.
        threat_model: The threat model of the attacks.
        settings: The settings of the choice.
        conditions: The seed is that of the attacks' draws. What is found is kept in a file beside
            the checkpoint, from which a resumed choice goes on. Progress is called for the robust
            base, then for each of the numbers that were attacked.

    Raises:
        InputError: If no numbers of the grid are robust enough, or the file is damaged.
    """
    began, seed = time.monotonic(), conditions.seed

    def right(found: Tensor, samples: Tensor) -> Tensor:
        """Return whether each setting is correct on images (n, ...) of samples (n,), (S, n)."""
        return _answers(make(neutral), found).right(grid, labels[samples])

    everyone = torch.arange(len(labels), device=labels.device)
    clean_standing = right(images, everyone)
    clean = clean_standing.double().mean(dim=1)
    robust = make(neutral).at_alpha(1.0)
    with torch.no_grad():
        of_robust = torch.cat([robust(some) for some in torch.split(images, BATCH_SIZE)])
    robust_standing = classes_of(of_robust) == labels
    robust_clean = float(robust_standing.double().mean())
    classes = of_robust.shape[1]
    file = _file(conditions, threat_model, settings, grid, clean_standing)
    found = file.load() if conditions.resume else None
    if found is not None:
        began -= found.seconds
    else:
        found = Found(robust_standing, clean_standing.clone(), torch.zeros_like(clean) > 0)
        for attack in _attacks_on_base(threat_model, settings, classes):
            broken, samples = attack(robust, images, labels, found.robust, seed)
            found.robust[samples] = False
            found.standing[:, samples] &= right(broken, samples)
        found.seconds = time.monotonic() - began
        file.save(found)
    standing, tried = found.standing, found.tried
    robust_attacked = float(found.robust.double().mean())
    least = robust_attacked - settings.allowed_loss
    conditions.progress(TriedNumbers({}, robust_clean, robust_attacked, least, True))
    while True:
        attacked = standing.double().mean(dim=1)
        # Accuracies are multiples of 1/N, so that half of one is rounding.
        possible = ((attacked >= least - 0.5 / len(labels)) & ~tried).nonzero().flatten()
        if not len(possible):
            raise InputError(
                f"no setting of {len(grid)} keeps {least:.2%} accuracy on the held-out images "
                "under attack; raise allowed_loss, or add settings nearer to the robust base"
            )
        order = clean[possible] + attacked[possible] / (2 * len(labels))
        best = int(possible[order.argmax()])
        tried[best] = True
        for attack in _attacks_on_mix(make(neutral), threat_model, settings, classes):
            broken, samples = attack(make(grid[best]), images, labels, standing[best], seed)
            standing[:, samples] &= right(broken, samples)
            standing[best, samples] = False
            left = float(standing[best].double().mean())
            is_robust_enough = left >= least - 0.5 / len(labels)
            if not is_robust_enough:
                break
        conditions.progress(
            TriedNumbers(grid[best], float(clean[best]), left, least, is_robust_enough)
        )
        if is_robust_enough:
            return Choice(
                numbers=grid[best],
                clean_accuracy=float(clean[best]),
                attacked_accuracy=left,
                robust_clean_accuracy=robust_clean,
                robust_attacked_accuracy=robust_attacked,
                settings=len(grid),
                attacked=int(tried.sum()),
                seconds=time.monotonic() - began,
            )
        found.seconds = time.monotonic() - began
        file.save(found)


def _file(
    conditions: Conditions,
    threat_model: ThreatModel,
    settings: MixSettings,
    grid: Sequence[MixNumbers],
    clean: Tensor,
) -> ChoiceFile:
    """Return the file of a choice, beside the training's checkpoint."""
    checkpoint = conditions.checkpoint
    identity = {
        "seed": conditions.seed,
        "threat_model": threat_model.model_dump(mode="json"),
        "settings": settings.model_dump(mode="json", include=DECISIVE),
        "grid": list(grid),
    }
    path = None if checkpoint is None else checkpoint.with_name(FILE)
    return ChoiceFile(path, identity, clean)


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


def _attacks_on_base(
    threat_model: ThreatModel, settings: MixSettings, classes: int
) -> list[SearchAttack]:
    """Return the attacks on the robust base: these, and the last."""
    last = _final_attack(threat_model, settings, classes)
    return [*_attacks_on_network(threat_model, settings, classes), last]


def _attacks_on_mix(
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


@torch.no_grad()
def _answers(mix: MixedClassifier, images: Tensor) -> PartAnswers:
    answers = [mix.answer(some) for some in torch.split(images, BATCH_SIZE)]
    return PartAnswers(
        torch.cat([each.accurate for each in answers]),
        torch.cat([each.robust for each in answers]),
        torch.cat([each.gamma for each in answers if each.gamma is not None])
        if mix.has_mixing_network
        else None,
    )
