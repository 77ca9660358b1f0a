"""The recipes by name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bench.training import adversarial, standard
from bench.training.loop import Trained, TrainingData
from bench.training.progress import ProgressCallback
from bench.training.settings import AdversarialSettings, Settings


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
    )
    return {recipe.name: recipe for recipe in known}
