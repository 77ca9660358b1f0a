"""The recipes by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bench.training import (
    adversarial,
    consistency,
    fixed_mix,
    gaussian,
    macer,
    mixing_network,
    smoothadv,
    smoothmix,
    stability,
    standard,
)
from bench.training.mix_settings import FixedMixSettings, MixingNetworkSettings
from bench.training.settings import AdversarialSettings, OneCycleSettings, Settings
from bench.training.smoothing_settings import (
    ConsistencySettings,
    GaussianSettings,
    MacerSettings,
    SmoothAdvSettings,
    SmoothMixSettings,
    StabilitySettings,
)
from bench.training.trained import Conditions, Trained, TrainingData

Train = Callable[[Settings, TrainingData, Conditions], Trained]
"""From settings, training images and conditions to a finished training."""


@dataclass(frozen=True)
class Recipe:
    """A way to train a network.

    Attributes:
        name: As the user writes it.
        summary: One line of help.
        settings_type: The model that its settings are validated by.
        train: The training itself.
    """

    name: str
    summary: str
    settings_type: type[Settings]
    train: Train


def recipes() -> dict[str, Recipe]:
    """Every recipe by its name."""
    known = (
        Recipe(
            "standard",
            "cross-entropy on augmented clean images",
            OneCycleSettings,
            standard.train,
        ),
        Recipe(
            "adversarial",
            "cross-entropy on images attacked in the Linf ball",
            AdversarialSettings,
            adversarial.train,
        ),
        Recipe("gaussian", "cross-entropy on noisy images", GaussianSettings, gaussian.train),
        Recipe(
            "smoothmix",
            "noisy images, mixed with adversarial ones of less certain labels",
            SmoothMixSettings,
            smoothmix.train,
        ),
        Recipe(
            "smoothadv",
            "cross-entropy on images attacked in the L2 ball through the noise",
            SmoothAdvSettings,
            smoothadv.train,
        ),
        Recipe(
            "consistency",
            "noisy images, and one answer for all copies of one",
            ConsistencySettings,
            consistency.train,
        ),
        Recipe(
            "stability",
            "clean images, and their answers for noisy ones",
            StabilitySettings,
            stability.train,
        ),
        Recipe(
            "macer",
            "noisy images, and a large certified radius",
            MacerSettings,
            macer.train,
        ),
        Recipe(
            "mixing-network",
            "the mixing network of an adaptive mix, on clean and on attacked images",
            MixingNetworkSettings,
            mixing_network.train,
        ),
        Recipe(
            "fixed-mix",
            "no training: the weight of a fixed mix, chosen on held-out training images",
            FixedMixSettings,
            fixed_mix.train,
        ),
    )
    return {recipe.name: recipe for recipe in known}
