"""What a recipe is: settings and data in, a trained network out; and the register of recipes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import Field
from torch import nn

from bench.errors import InputError
from bench.training.data import TrainingData
from bench.validation import StrictModel


class TrainingSettings(StrictModel):
    """The settings of a training: all that decides its outcome but the seed and the data.

    Each recipe has a model of its own, which says what it needs beyond this.
    """

    held_out: int = Field(default=0, ge=0)
    """Training images that are not trained on, for following the progress and for choices."""

    def threat_models(self) -> list[dict[str, Any]]:
        """Return the threat models that the candidate is trained for, as ``norm`` and ``eps``."""
        return []


@dataclass(frozen=True)
class Measurement:
    """Accuracies, as fractions, of the averaged weights on the held-out training images."""

    epoch: int
    clean_accuracy: float
    robust_accuracy: float | None = None
    """Under ten steps of PGD in the threat model; None for a recipe without one."""


@dataclass(frozen=True)
class TrainingProgress:
    """The state of a training after some steps."""

    epoch: int
    """Finished epochs."""
    epochs: int
    step: int
    """Finished steps, of all epochs."""
    steps: int
    seconds: float
    """Spent so far, including earlier runs of a resumed training."""
    loss: float
    """Mean training loss of this epoch so far."""
    learning_rate: float
    measurement: Measurement | None = None
    """The one taken at the end of this epoch, if one was."""


@dataclass(frozen=True)
class TriedNumbers:
    """Numbers of a mix that were attacked on the held-out images."""

    numbers: Mapping[str, float]
    """Empty for the robust base alone, which comes first."""
    clean_accuracy: float
    """As a fraction, as the next two."""
    attacked_accuracy: float
    """An upper bound, if it is below what is required."""
    required: float
    """The attacked accuracy that is robust enough."""
    is_robust_enough: bool


ProgressCallback = Callable[[TrainingProgress | TriedNumbers], None]


def ignore(progress: TrainingProgress | TriedNumbers) -> None:
    """Do nothing: the default callback."""


@dataclass(frozen=True)
class Conditions:
    """The conditions under which a training runs.

    Attributes:
        seed: Decides the initial weights and every draw.
        checkpoint: File written after every epoch; None for none.
        resume: Whether to continue from that file, if it exists.
        progress: Called every few steps, after every epoch, and when a mix's numbers were tried.
        device: Where the training runs, as torch names it. The order of the images and their
            augmentation are the same on every device; noise is drawn where it is used.
    """

    seed: int = 0
    checkpoint: Path | None = None
    resume: bool = False
    progress: ProgressCallback = ignore
    device: str = "cpu"


@dataclass(frozen=True)
class Trained:
    """A finished training.

    Attributes:
        network: The trained network, in eval mode; None if only a choice was made.
        architecture: ``module:function`` of the whole candidate.
        architecture_args: The function's arguments, beside the bases.
        seconds: Wall-clock time, including earlier runs of a resumed training.
        started: When its first run began, in ISO 8601, UTC.
        measurements: On the held-out images, oldest first.
        bases: The names of a mix's candidates, by "accurate" and "robust".
        surrogate: ``module:function`` of a stand-in for the backward pass of attacks.
        record: What else is worth knowing, in plain values.
    """

    network: nn.Module | None
    architecture: str
    architecture_args: dict[str, Any]
    seconds: float
    started: str
    measurements: tuple[Measurement, ...] = ()
    bases: Mapping[str, str] = field(default_factory=dict)
    surrogate: str | None = None
    record: Mapping[str, Any] = field(default_factory=dict)


SettingsType = TypeVar("SettingsType", bound=TrainingSettings)

Train = Callable[[SettingsType, TrainingData, Conditions], Trained]
"""From settings, training data and conditions to a finished training."""


@dataclass(frozen=True)
class Recipe(Generic[SettingsType]):
    """A way to train a network.

    Attributes:
        name: As the user writes it.
        summary: One line of help.
        settings_type: The model that its settings are validated by.
        method: The training itself.
    """

    name: str
    summary: str
    settings_type: type[SettingsType]
    method: Train[SettingsType]

    def train(
        self, settings: TrainingSettings, data: TrainingData, conditions: Conditions
    ) -> Trained:
        """Train.

        Args:
            settings: The recipe's settings.
            data: Training images and labels.
            conditions: Seed, checkpoint and device.

        Raises:
            InputError: If the settings do not fit the data or the checkpoint.
            TypeError: If the settings are those of another recipe.
        """
        if not isinstance(settings, self.settings_type):
            raise TypeError(
                f"expected {self.settings_type.__name__}, got {type(settings).__name__}"
            )
        return self.method(settings, data, conditions)


_RECIPES: dict[str, Recipe[Any]] = {}


def register_recipe(
    name: str, summary: str, settings_type: type[SettingsType], method: Train[SettingsType]
) -> None:
    """Make a recipe known by its name, to `bench.training.run` and to `bench train`.

    Args:
        name: As the user writes it.
        summary: One line of help.
        settings_type: The model that its settings are validated by.
        method: The training itself.

    Raises:
        InputError: If another recipe has this name.
    """
    if name in _RECIPES:
        raise InputError(f"expected a new name for a recipe, got {name!r}, which is taken")
    _RECIPES[name] = Recipe(name, summary, settings_type, method)


def recipes() -> dict[str, Recipe[Any]]:
    """Return every registered recipe by its name, in alphabetical order."""
    return dict(sorted(_RECIPES.items()))


def find_recipe(name: str, origin: str = "") -> Recipe[Any]:
    """Return the recipe with a name.

    Args:
        name: As the user wrote it.
        origin: Where, for the error; ends in a colon and a space.

    Raises:
        InputError: If no recipe with this name is registered.
    """
    if name not in _RECIPES:
        known = ", ".join(recipes())
        raise InputError(f"{origin}expected a registered recipe ({known}), got {name!r}")
    return _RECIPES[name]


def readable_radius(eps: float) -> str | float:
    """Return a radius as the field writes it: 0.2, but 8/255 for 0.03137254901960784."""
    levels = round(eps * 255)
    is_fraction = levels > 0 and float(Fraction(levels, 255)) == eps
    return f"{levels}/255" if is_fraction and len(repr(eps)) > len("0.0314") else eps
