"""The recipes by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bench.training import adversarial, fixed_mix, mixing_network, standard
from bench.training.mix_settings import FixedMixSettings, MixingNetworkSettings
from bench.training.settings import AdversarialSettings, NetworkSettings, Settings
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
            NetworkSettings,
            standard.train,
        ),
        Recipe(
            "adversarial",
            "cross-entropy on images attacked in the Linf ball",
            AdversarialSettings,
            adversarial.train,
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
