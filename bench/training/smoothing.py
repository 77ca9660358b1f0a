"""What all recipes for smoothed classifiers share: the loop's settings, and what is measured.

A recipe is a loss on noisy copies. The network that is trained is the base; the submission is the
smoothed classifier around it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from bench.candidates.smoothed import Smoothed
from bench.training.loop import fit
from bench.training.measure import clean_accuracy
from bench.training.network import make_network
from bench.training.optimization import plain_sgd
from bench.training.progress import Measurement
from bench.training.settings import Settings
from bench.training.smoothing_settings import SmoothingSettings
from bench.training.trained import Conditions, Trained, TrainingData

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

    def __call__(self, settings: Settings, data: TrainingData, conditions: Conditions) -> Trained:
        """Train a base for accuracy and certified radius under noise.

        Args:
            settings: Of the recipe's own type.
            data: Training images and labels.
            conditions: Seed, checkpoint and device.

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

        base = make_network(own, conditions.seed).to(conditions.device)
        fitted = fit(
            base,
            data,
            own,
            plain_sgd(base, own),
            batch_loss,
            conditions,
            measure=measure,
            measure_every=own.measure_every,
        )
        return Trained(
            Smoothed(fitted.network, own.sigma, BANK_DRAWS, BANK_SEED),
            "bench.candidates.smoothed:smoothed",
            {
                "base_architecture": own.architecture,
                "base_args": own.architecture_args,
                "sigma": own.sigma,
                "noise_samples": BANK_DRAWS,
                "seed": BANK_SEED,
            },
            fitted.seconds,
            fitted.started,
            fitted.measurements,
        )


def warm_up(epoch: int, epochs: int) -> float:
    """A factor that rises to 1 within so many epochs; the first of them, 0, has 1 / epochs."""
    return min(1.0, (epoch + 1) / epochs)
