"""Settings of the recipes that make a mix of two candidates."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from bench.suites.suite import load_suite
from bench.training.settings import LoopSettings, Settings, readable_radius


def _ascending(interval: tuple[float, float]) -> tuple[float, float]:
    if not 0 <= interval[0] <= interval[1]:
        raise ValueError("expected two numbers, 0 <= low <= high")
    return interval


Interval = Annotated[tuple[float, float], AfterValidator(_ascending)]
"""The ends of a uniform distribution, in [0, infinity)."""

Scale = Annotated[float, Field(gt=0)]


class MixSettings(Settings):
    """What the choice of a mix's numbers needs.

    They are chosen on held-out training images. Where both bases held out the same number with the
    same seed, these are images that no part of the mix was trained on.
    """

    suite: str
    """Whose data set and threat model the mix is for."""
    accurate: str
    """Name of the accurate base, a candidate."""
    robust: str
    """Name of the robust base, a candidate."""
    held_out: int = Field(default=500, ge=1)
    allowed_loss: float = Field(default=0.015, ge=0, le=1)
    """How much attacked accuracy, as a fraction, the mix may have less than its robust base."""
    accurate_scales: tuple[Scale, ...] = Field(default=(1.0, 2.0), min_length=1)
    """Factors on the accurate base's logits to choose from; the first is that of the training."""
    robust_scales: tuple[Scale, ...] = Field(default=(1.0,), min_length=1)
    """Factors on the robust base's logits to choose from; the first is that of the training."""
    search_steps: int = Field(default=20, ge=1)
    """Of each attack on the held-out images."""
    search_targets: int = Field(default=3, ge=1)
    """Classes that a targeted attack on the held-out images aims for."""
    final_steps: int = Field(default=100, ge=1)
    """Of the attack that what stands the others must stand as well."""
    final_targets: int = Field(default=9, ge=1)
    """Classes that this one aims for."""

    def threat_models(self) -> list[dict[str, Any]]:
        """The suite's."""
        threat_model = load_suite(self.suite).threat_model
        return [{"norm": threat_model.norm, "eps": readable_radius(threat_model.eps)}]


class FixedMixSettings(MixSettings):
    """Settings of the choice of a fixed weight."""

    alpha_step: float = Field(default=0.01, gt=0, le=1)
    """Distance of the weights to choose from, which begin at 1 and go down to 0."""


class MixingNetworkSettings(MixSettings, LoopSettings):
    """Settings of the training of a mixing network; the defaults are arXiv 2301.12554's."""

    held_out: int = Field(default=500, ge=1)
    accurate_layers: tuple[str, str]
    """See ``bench.candidates.adaptive_mix.AdaptiveMix``, as for the next three."""
    robust_layers: tuple[str, str]
    version: int = 4
    planes: tuple[int, ...]

    epochs: int = Field(default=3, ge=1)
    batch_size: int = Field(default=32, ge=1)
    """Images that are attacked in a step; the loss sees twice as many for each run of an attack."""
    peak_learning_rate: float = Field(default=1e-4, gt=0)
    warm_up: float = Field(default=1 / 25, ge=0, lt=1)
    """Share of the training after which the learning rate has reached 1 - 1/e of its course."""
    weight_decay: float = Field(default=1e-5, ge=0)
    gradient_clip: float = Field(default=10.0, gt=0)
    average_decay: float = Field(default=0.0, ge=0, lt=1)

    cross_entropy: float = Field(default=0.0, ge=0)
    """c_ce, the weight of the mix's cross-entropy."""
    mixing_entropy: float = Field(default=1.5, ge=0)
    """c_bce, the weight of gamma's binary cross-entropy: attacked or not."""
    product: float = Field(default=0.2, ge=0)
    """c_prod, the weight of the two's product."""
    clean_weight: float = Field(default=1.0, gt=0)
    """Factor on the loss of a clean image."""

    attack: Literal["apgd", "pgd"] = "apgd"
    """Auto-PGD, or steps of one size along a momentum of the gradients."""
    attack_steps: int = Field(default=75, ge=1)
    """Degrees of freedom of the chi-squared distribution that the number of steps is drawn from."""
    attack_targets: int = Field(default=9, ge=0)
    """Classes that targeted runs aim for, beside one run on the cross-entropy."""
    radius_factors: Interval = (0.4, 1.1)
    """Of each attacked image's radius to that of the threat model."""
    push_weights: Interval = (0.0, 0.4)
    """Of each attacked image's share of BCE(gamma, 1) in the loss that is ascended."""
    momentum_decays: Interval = (0.0, 0.9)
    """Of the momentum of PGD."""

    alpha_step: float = Field(default=0.05, gt=0, le=1)
    """Distance of the ends to choose alpha's range from, which begin at 1 and go down to 0."""
    gamma_scales: tuple[Scale, ...] = Field(default=(1.0, 2.0, 4.0), min_length=1)
    gamma_biases: tuple[float, ...] = Field(default=(0.0, 0.4, 1.0, 1.6), min_length=1)
