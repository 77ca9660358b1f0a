"""The network that settings name, and its training from random weights."""

from __future__ import annotations

import importlib
from typing import cast

from torch import nn

from bench.errors import InputError
from bench.training.initialization import initialised
from bench.training.loop import BatchLoss, Measure, fit
from bench.training.optimization import sgd
from bench.training.settings import NetworkSettings, OneCycleSettings
from bench.training.trained import Conditions, Trained, TrainingData


def train_network(
    settings: OneCycleSettings,
    data: TrainingData,
    batch_loss: BatchLoss,
    measure: Measure,
    conditions: Conditions,
) -> Trained:
    """Train the network that the settings name on a loss.

    Args:
        settings: The recipe's settings.
        data: Training images and labels.
        batch_loss: The loss of a batch.
        measure: Called on the averaged weights and the held-out images.
        conditions: The seed is that of the initial weights too.

    Raises:
        InputError: If the settings do not fit the data or the checkpoint.
    """
    network = make_network(settings, conditions.seed).to(conditions.device)
    fitted = fit(
        network,
        data,
        settings,
        sgd(network, settings),
        batch_loss,
        conditions,
        measure=measure,
        measure_every=settings.measure_every,
    )
    return Trained(
        fitted.network,
        settings.architecture,
        settings.architecture_args,
        fitted.seconds,
        fitted.started,
        fitted.measurements,
    )


def make_network(settings: NetworkSettings, seed: int) -> nn.Module:
    """A freshly initialised network.

    Raises:
        InputError: If there is no such architecture, or its arguments are wrong.
    """
    module_name, _, function_name = settings.architecture.partition(":")
    try:
        make = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            "expected architecture to be module:function, e.g. "
            "bench.candidates.architectures:residual_network, got "
            f"{settings.architecture!r} ({error})"
        ) from error
    try:
        return initialised(lambda: cast(nn.Module, make(**settings.architecture_args)), seed)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"expected architecture_args that {settings.architecture} takes, got "
            f"{settings.architecture_args} ({error})"
        ) from error
