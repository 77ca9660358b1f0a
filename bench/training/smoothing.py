"""What all recipes for smoothed classifiers share: the loop's settings, and what is measured.

A recipe is a loss on noisy copies. The network that is trained is the base; the submission is the
smoothed classifier around it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from bench.candidates.smoothed import Smoothed
from bench.training.loop import Trained, TrainingData, fit
from bench.training.measure import clean_accuracy
from bench.training.network import make_network
from bench.training.progress import Measurement, ProgressCallback, ignore
from bench.training.schedule import divided
from bench.training.settings import Settings
from bench.training.smoothing_settings import SmoothingSettings

BANK_DRAWS = 16
"""Of the smoothed classifier that is measured and submitted, as attacks see it."""
BANK_SEED = 0

SettingsType = TypeVar("SettingsType", bound=SmoothingSettings)

SmoothingLoss = Callable[[SettingsType, nn.Module, Tensor, Tensor, torch.Generator, int], Tensor]
"""Scalar loss of settings, a base in train mode, images (N, C, H, W) in [0, 1], labels (N,), the
source of the noise, and the epoch from 0."""


class SmoothingTraining(Generic[SettingsType]):
    """The ``train`` of a recipe.

    Args:
        settings_type: The recipe's settings.
        loss: The recipe's loss.
    """

    def __init__(
        self, settings_type: type[SettingsType], loss: SmoothingLoss[SettingsType]
    ) -> None:
        self.settings_type = settings_type
        self.loss = loss

    def __call__(
        self,
        settings: Settings,
        data: TrainingData,
        *,
        seed: int = 0,
        checkpoint: Path | None = None,
        resume: bool = False,
        progress: ProgressCallback = ignore,
        device: str = "cpu",
    ) -> Trained:
        """Train a base for accuracy and certified radius under noise.

        Args:
            settings: Of the recipe's own type.
            data: Training images and labels.
            seed: Of the initial weights and of every draw.
            checkpoint: File written after every epoch; None for none.
            resume: Whether to go on from that file, if it exists.
            progress: Called every few steps and after every epoch.
            device: Where the training runs, as torch names it.

        Raises:
            InputError: If the settings do not fit the data or the checkpoint.
            TypeError: If the settings are of another type.
        """
        if not isinstance(settings, self.settings_type):
            raise TypeError(
                f"expected {self.settings_type.__name__}, got {type(settings).__name__}"
            )
        own = settings

        def batch_loss(
            network: nn.Module,
            images: Tensor,
            labels: Tensor,
            generator: torch.Generator,
            epoch: int,
        ) -> Tensor:
            return self.loss(own, network, images, labels, generator, epoch)

        def measure(epoch: int, network: nn.Module, images: Tensor, labels: Tensor) -> Measurement:
            classifier = Smoothed(network, own.sigma, BANK_DRAWS, BANK_SEED)
            return Measurement(epoch, clean_accuracy(classifier, images, labels, own.precision))

        def learning_rate(step: int, steps: int) -> float:
            return divided(step, steps, own.epochs, own.peak_learning_rate, own.decay_every)

        return fit(
            make_network(own, seed),
            data,
            own,
            batch_loss,
            measure,
            seed=seed,
            checkpoint=checkpoint,
            resume=resume,
            progress=progress,
            device=torch.device(device),
            optimizer=lambda network: plain_sgd(network, own),
            learning_rate=learning_rate,
        )


def plain_sgd(network: nn.Module, settings: SmoothingSettings) -> torch.optim.SGD:
    """Stochastic gradient descent as the papers have it: plain momentum, decay on all weights."""
    return torch.optim.SGD(
        network.parameters(),
        lr=settings.peak_learning_rate,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
    )


def warm_up(epoch: int, epochs: int) -> float:
    """A factor that rises to 1 within so many epochs; the first of them, 0, has 1 / epochs."""
    return min(1.0, (epoch + 1) / epochs)


def smoothed_submission(
    network: nn.Module, settings: SmoothingSettings
) -> tuple[nn.Module, str, dict[str, Any]]:
    """The smoothed classifier around a base, its architecture and the architecture's arguments."""
    arguments = {
        "base_architecture": settings.architecture,
        "base_args": settings.architecture_args,
        "sigma": settings.sigma,
        "noise_samples": BANK_DRAWS,
        "seed": BANK_SEED,
    }
    module = Smoothed(network, settings.sigma, BANK_DRAWS, BANK_SEED)
    return module, "bench.candidates.smoothed:smoothed", arguments
