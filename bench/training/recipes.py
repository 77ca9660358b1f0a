"""The recipes by name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bench.training import (
    adversarial,
    consistency,
    gaussian,
    macer,
    smoothadv,
    smoothmix,
    stability,
    standard,
)
from bench.training.loop import Trained, TrainingData
from bench.training.progress import ProgressCallback
from bench.training.settings import AdversarialSettings, Settings
from bench.training.smoothing_settings import (
    ConsistencySettings,
    GaussianSettings,
    MacerSettings,
    SmoothAdvSettings,
    SmoothMixSettings,
    StabilitySettings,
)


class Train(Protocol):
    """What a recipe's ``train`` looks like."""

    def __call__(
        self,
        settings: Settings,
        data: TrainingData,
        *,
        seed: int,
        checkpoint: Path | None,
        resume: bool,
        progress: ProgressCallback,
        device: str,
    ) -> Trained:
        """Train a network; see the recipe's own docstring."""


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
        Recipe("standard", "cross-entropy on augmented clean images", Settings, standard.train),
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
    )
    return {recipe.name: recipe for recipe in known}
