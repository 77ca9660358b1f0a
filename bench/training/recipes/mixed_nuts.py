"""MixedNUTS: nothing is trained; the transformation and the weight are chosen from margins.

Y. Bai, M. Zhou, V. M. Patel, S. Sojoudi, "MixedNUTS: Training-Free Accuracy-Robustness Balance via
Nonlinearly Mixed Classifiers", TMLR 2024, arXiv 2402.02263, section 4 and algorithm 1.

The robust base decides where its margin, the difference of its two highest probabilities, is at
least (1 - alpha) / alpha; elsewhere the accurate base does. So a good transformation gives large
margins to attacked images that the robust base gets right, and small ones to clean images that it
gets wrong. The weight follows from the transformation: it keeps a share `kept` of the attacked
images that the robust base gets right.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import product
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from bench.attacks.attack import Model, likeliest_wrong_classes
from bench.attacks.cosine_pgd import CosinePGD
from bench.attacks.draws import KeyedDraws, keyed_draws
from bench.candidates.mixed_nuts import MixedNuts, standardize
from bench.decision import classes_of
from bench.errors import InputError
from bench.suites.suite import ThreatModel
from bench.training.data import TrainingData, split
from bench.training.mix import BasesSettings, LoadedBases, with_fast_bases
from bench.training.recipe import Conditions, Trained, TriedNumbers, register_recipe

BATCH_SIZE = 250

LARGEST_CUTOFF = 1 - 3e-6
"""Nearer to 1, margins cannot be told apart in float32, in which the mix answers."""

Range = tuple[float, float]
Share = Annotated[float, Field(gt=0, lt=1)]


class MixedNutsSettings(BasesSettings):
    """The settings of the choice; the ranges are the paper's for CIFAR-100."""

    kept: Share = 0.985
    """Beta: the share of the robust base's right answers under attack that the mix keeps."""
    surrogate_kept: Share = 0.985
    """The same for the surrogate's weight, with the robust base's own probabilities."""
    scales: Range = (0.05, 4.0)
    """The lowest and the highest s, positive; those between are spaced by equal factors."""
    powers: Range = (1.0, 4.0)
    """The lowest and the highest p, at least 1; spaced evenly."""
    biases: Range = (-2.5, 0.0)
    """The lowest and the highest c; spaced evenly."""
    values: int = Field(default=8, ge=2)
    """How many values of each are tried."""
    steps: int = Field(default=100, ge=1)
    """Steps of each attack that lowers the robust base's margins."""
    targets: int = Field(default=9, ge=0)
    """Classes that attacks aim for in turn, after one that aims for any."""


@dataclass(frozen=True)
class Transformation:
    """The robust base's transformation, and the weight that follows from it.

    Attributes:
        scale, power, bias: s, p and c.
        cutoff: the margin from which the robust base decides, in [0, 1).
        wrong: the share of clean images that the robust base gets wrong, and where it decides all
            the same.
    """

    scale: float
    power: float
    bias: float
    cutoff: float
    wrong: float

    @property
    def alpha(self) -> float:
        """The weight of the robust base, in (1/2, 1]."""
        return 1 / (1 + self.cutoff)


def train(settings: MixedNutsSettings, data: TrainingData, conditions: Conditions) -> Trained:
    """Choose the numbers of a MixedNUTS mix on held-out training images; see ``Recipe.train``.

    There are no checkpoints: it takes minutes.
    """
    began, started = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")
    check(settings)
    _, held_out = split(len(data.labels), settings.held_out, conditions.seed)
    bases = LoadedBases(settings, data.name)
    seen = bases.images_seen(data, settings.held_out, conditions.seed)
    images, labels = (each[held_out].to(conditions.device) for each in (data.images, data.labels))
    neutral = MixedNuts(
        bases.accurate, bases.robust, alpha=1, scale=1, power=1, bias=0, surrogate_alpha=1
    )
    mix = with_fast_bases(neutral.to(conditions.device).eval(), images[:8])
    of_accurate, of_robust = (logits_of(base, images) for base in (mix.accurate, mix.robust))
    right = classes_of(of_robust) == labels
    attacked, standing = attacked_logits(
        mix.robust, images, labels, right, bases.threat_model, settings, conditions.seed
    )
    of_standing = labels[standing]
    if attacked.shape[1] == 0 or bool(right.all()):
        raise InputError(
            "expected held-out images that the robust base gets right under attack, and clean ones "
            f"that it gets wrong; got {attacked.shape[1]} and {int((~right).sum())} of "
            f"{len(labels)}; raise held_out"
        )
    chosen, tried = choose(settings, attacked, of_standing, of_robust[~right], labels[~right])
    numbers = {
        "alpha": chosen.alpha,
        "scale": chosen.scale,
        "power": chosen.power,
        "bias": chosen.bias,
        "surrogate_alpha": 1 / (1 + cutoff(leads(attacked, of_standing), settings.surrogate_kept)),
    }
    final = MixedNuts(mix.accurate, mix.robust, **numbers)
    clean = mixed_classes(final, of_accurate, of_robust) == labels
    robust_attacked = attacked.shape[1] / len(labels)
    kept = kept_share(final, attacked, of_standing) * robust_attacked
    accuracies = float(clean.double().mean()), float(right.double().mean())
    conditions.progress(TriedNumbers({}, accuracies[1], robust_attacked, kept, True))
    conditions.progress(TriedNumbers(numbers, accuracies[0], kept, kept, True))
    return Trained(
        network=None,
        architecture="bench.candidates.mixed_nuts:MixedNuts",
        architecture_args=numbers,
        surrogate="bench.candidates.mixed_nuts:surrogate",
        seconds=time.monotonic() - began,
        started=started,
        bases=bases.names,
        record={
            "bases_sha256": bases.sha256,
            "held_out_images_seen": seen,
            "choice": {
                "held_out_images": len(labels),
                "clean_accuracy": round(accuracies[0], 4),
                "attacked_accuracy_estimate": round(kept, 4),
                "robust_base_clean_accuracy": round(accuracies[1], 4),
                "robust_base_attacked_accuracy": round(robust_attacked, 4),
                "wrong_answers_that_decide": round(chosen.wrong, 4),
                "settings_to_choose_from": tried,
            },
        },
    )


def check(settings: MixedNutsSettings) -> None:
    """Refuse ranges that no transformation has.

    Raises:
        InputError: a range goes down, a scale is not positive, or a power is below 1.
    """
    for name, least in (("scales", 0.0), ("powers", 1.0), ("biases", -math.inf)):
        low, high = getattr(settings, name)
        if not (low <= high and (low > 0 if name == "scales" else low >= least)):
            raise InputError(
                f"setting {name}: expected the lowest value and the highest, "
                f"{'positive' if name == 'scales' else f'from {least:g} on'}; got {low}, {high}"
            )


def transformations(settings: MixedNutsSettings) -> list[tuple[float, float, float]]:
    """Return every (scale, power, bias) that the settings ask for."""
    logarithms = torch.tensor(settings.scales, dtype=torch.float64).log()
    scales = torch.linspace(
        float(logarithms[0]), float(logarithms[1]), settings.values, dtype=torch.float64
    ).exp()
    powers, biases = (
        torch.linspace(*ends, settings.values, dtype=torch.float64)
        for ends in (settings.powers, settings.biases)
    )
    return [
        (round(s, 6), round(p, 6), round(c, 6))
        for s, p, c in product(scales.tolist(), powers.tolist(), biases.tolist())
    ]


def choose(
    settings: MixedNutsSettings,
    attacked: Tensor,
    labels: Tensor,
    wrong: Tensor,
    wrong_labels: Tensor,
) -> tuple[Transformation, int]:
    """Return the transformation with which fewest wrong answers decide, and how many were tried.

    Between equals the one with the largest cutoff is taken: its weight is furthest from 1, where
    rounding would decide.

    Args:
        settings: the ranges and the share to keep.
        attacked: (A, M, K) logits of the robust base on A attacks' images of M samples that it
            gets right.
        labels: (M,) of these samples.
        wrong: (W, K) its logits on clean images that it gets wrong.
        wrong_labels: (W,) of those.

    Raises:
        InputError: every transformation gives margins of 1.
    """
    every = transformations(settings)
    best: Transformation | None = None
    for scale, power, bias in every:
        map_of = MixedNuts(
            nn.Identity(),
            nn.Identity(),
            alpha=1,
            scale=scale,
            power=power,
            bias=bias,
            surrogate_alpha=1,
        )
        found = cutoff(leads(transformed(map_of, attacked), labels), settings.kept)
        if found > LARGEST_CUTOFF:
            continue
        decides = wrong_margins(map_of.transform(wrong.double()), wrong_labels) >= found
        tried = Transformation(scale, power, bias, found, float(decides.double().mean()))
        if best is None or (tried.wrong, -tried.cutoff) < (best.wrong, -best.cutoff):
            best = tried
    if best is None:
        raise InputError(
            "expected a transformation with margins below 1 under attack, got none; lower the "
            "highest of scales and powers"
        )
    return best, len(every)


def transformed(mix: MixedNuts, logits: Tensor) -> Tensor:
    """Transform logits (A, M, K) in float64: margins near 1 must differ."""
    return mix.transform(logits.double().flatten(0, 1)).reshape(logits.shape)


def leads(logits: Tensor, labels: Tensor) -> Tensor:
    """Return by how much a sample's label leads in probability, the lowest over its A images.

    Args:
        logits: (A, M, K).
        labels: (M,) int64.

    Returns:
        (M,) in [-1, 1].
    """
    probabilities = logits.double().softmax(dim=-1)
    column = labels.expand(len(logits), -1)[..., None]
    of_label = probabilities.gather(-1, column)
    others = probabilities.scatter(-1, column, -1.0)
    return (of_label.squeeze(-1) - others.amax(dim=-1)).amin(dim=0)


def wrong_margins(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the difference of the two highest probabilities where the highest is not the label's.

    Args:
        logits: (W, K).
        labels: (W,) int64.

    Returns:
        (W,) in [0, 1]; -1 where the label's is the highest, since a transformation bends low logits
        past each other.
    """
    highest = logits.double().softmax(dim=-1).topk(2, dim=-1)
    margin = highest.values[:, 0] - highest.values[:, 1]
    return torch.where(highest.indices[:, 0] == labels, -1.0, margin)


def cutoff(attacked: Tensor, kept: float) -> float:
    """Return the highest cutoff, at least 0, that a share `kept` of the leads (M,) reach."""
    lost = math.floor((1 - kept) * len(attacked) + 1e-9)
    return max(0.0, float(attacked.sort().values[lost]))


def logits_of(base: nn.Module, images: Tensor) -> Tensor:
    """Return a base's logits (N, K) of images (N, C, H, W), batch by batch."""
    with torch.no_grad():
        return torch.cat([base(some) for some in torch.split(images, BATCH_SIZE)])


def mixed_classes(mix: MixedNuts, of_accurate: Tensor, of_robust: Tensor) -> Tensor:
    """Return the classes (N,) that a mix answers, from its bases' logits (N, K)."""
    return classes_of(
        torch.logaddexp(
            mix.accurate_log_probabilities(of_accurate) + math.log1p(-mix.alpha)
            if mix.alpha < 1
            else torch.full_like(of_accurate, -math.inf),
            mix.robust_log_probabilities(of_robust) + math.log(mix.alpha),
        )
    )


def kept_share(mix: MixedNuts, attacked: Tensor, labels: Tensor) -> float:
    """Return the share of M samples that the mix gets right, whatever the accurate base answers.

    Args:
        mix: with the transformation and the weight.
        attacked: (A, M, K) logits of the robust base.
        labels: (M,) int64.
    """
    least = leads(transformed(mix, attacked), labels)
    return float((least >= (1 - mix.alpha) / mix.alpha - 1e-12).double().mean())


def attacked_logits(
    robust: nn.Module,
    images: Tensor,
    labels: Tensor,
    right: Tensor,
    threat_model: ThreatModel,
    settings: MixedNutsSettings,
    seed: int,
) -> tuple[Tensor, Tensor]:
    """Return the robust base's logits on images that lower its margin most, where it stays right.

    One attack lowers the margin to the nearest other class, and one that to each of the likeliest
    classes in turn. They work on standardized logits, as the transformations do, which hardly
    change the order of the highest ones.

    Args:
        robust: the robust base.
        images: (N, C, H, W).
        labels: (N,) int64.
        right: (N,) bool, which samples are attacked.
        threat_model: of the attacks.
        settings: steps and targets of the attacks.
        seed: of the attacks' draws.

    Returns:
        (A, M, K): of A images of each of the M samples that no attack breaks, the first clean; and
        those samples (M,).
    """
    samples = right.nonzero().flatten()
    images, labels = images[samples], labels[samples]
    logits = logits_of(robust, images)
    targets = likeliest_wrong_classes(logits, labels, settings.targets)

    def standardized(some: Tensor) -> Tensor:
        return standardize(robust(some))

    found, standing = [logits], torch.ones_like(labels, dtype=torch.bool)
    for rank in range(targets.shape[1] + 1):
        nearest = lowest_margins(
            standardized, images, labels, targets[:, rank - 1] if rank else None,
            threat_model, settings.steps, keyed_draws(seed, samples, "margin", targets=rank),
        )  # fmt: skip
        found.append(logits_of(robust, nearest))
        standing &= classes_of(found[-1]) == labels
    return torch.stack(found)[:, standing], samples[standing]


def lowest_margins(
    model: Model,
    images: Tensor,
    labels: Tensor,
    targets: Tensor | None,
    threat_model: ThreatModel,
    steps: int,
    draws: KeyedDraws,
) -> Tensor:
    """Return the images (N, ...) where an attack of so many steps found the lowest margin."""
    attack = CosinePGD(
        threat_model.norm,
        threat_model.eps,
        targeted=targets is not None,
        steps=steps,
        stops_at_break=False,
    )
    state = attack.start(images, labels, draws, targets, torch.zeros_like(labels))
    while not bool(attack.finished(state).all()):
        state = attack.step(model, state)
    return state.best


register_recipe(
    "mixed-nuts",
    "no training: the transformation and the weight of MixedNUTS, chosen from margins",
    MixedNutsSettings,
    train,
)
