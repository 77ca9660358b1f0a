"""Networks that settings name: made from a seed, trained, and passed through."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from bench.decision import classes_of
from bench.errors import InputError
from bench.memory.out_of_memory import is_out_of_memory
from bench.training.data import TrainingData
from bench.training.draws import initialised
from bench.training.loop import BatchLoss, LoopSettings, Measure, fit
from bench.training.optimization import Optimization, one_cycle
from bench.training.recipe import Conditions, Trained
from bench.training.resizing import resized, side_at
from bench.training.start import find_start

Precision = Literal["bfloat16", "float32"]

MEASURED_AT_ONCE = 250
"""Images in a pass of a measurement."""


class NetworkSettings(LoopSettings):
    """The settings of a network that is trained, from random weights or from given ones."""

    architecture: str
    """The function that makes the network, as ``module:function``."""
    architecture_args: dict[str, Any] = Field(default_factory=dict)
    """The function's arguments; `architecture_args.NAME` sets one of them."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Momentum of stochastic gradient descent."""
    precision: Precision = "bfloat16"
    """The precision of a pass through the network; weights are always float32."""
    measure_every: int = Field(default=1, ge=1)
    """Epochs from one measurement on the held-out images to the next."""
    first_side: int | None = Field(default=None, ge=8)
    """Side of the images in the first epoch, in pixels, rounded to a multiple of 4; None: that of
    the data set's."""
    growth: float = Field(default=0.5, ge=0, le=1)
    """Share of the epochs in which the side grows, linearly, to the data set's."""
    start: str | None = None
    """Weights to begin from: a shipped submission's name, a submission's folder, or a weights file;
    None: random ones."""


class OneCycleSettings(NetworkSettings):
    """The settings of a training on clean or attacked images in one cycle."""

    warm_up: float = Field(default=0.25, ge=0, lt=1)
    """Share of the training in which the learning rate rises."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of the target's probability that is spread over all classes."""


def train_network(
    settings: NetworkSettings,
    data: TrainingData,
    conditions: Conditions,
    optimize: Callable[[nn.Module], Optimization],
    batch_loss: BatchLoss,
    measure: Measure,
) -> Trained:
    """Train the network that the settings name on a loss, from random weights or given ones.

    Args:
        settings: The recipe's settings.
        data: Training images and labels.
        conditions: The seed decides the initial weights too.
        optimize: Makes the optimizer of the network's parameters.
        batch_loss: The loss of a batch.
        measure: Called on the averaged weights and the held-out images.

    Raises:
        InputError: If the settings do not fit the data or the checkpoint.
    """
    network = make_network(settings, conditions.seed).to(conditions.device)
    check_output(network, data, settings, conditions.device)
    return fit_network(network, settings, data, conditions, optimize(network), batch_loss, measure)


def fit_network(
    network: nn.Module,
    settings: NetworkSettings,
    data: TrainingData,
    conditions: Conditions,
    optimization: Optimization,
    batch_loss: BatchLoss,
    measure: Measure,
) -> Trained:
    """Train a network of `make_network` on a loss; the arguments are as in `train_network`.

    Raises:
        InputError: If the settings do not fit the data or the checkpoint.
    """
    digests: dict[str, str] = {}
    if settings.start is not None:
        start = find_start(settings.start)
        start.load(network)
        start.check_held_out(data, settings.held_out, conditions.seed)
        digests = {"start": start.sha256}

    def at_its_side(
        network: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator, epoch: int
    ) -> Tensor:
        side = side_at(
            epoch, settings.epochs, images.shape[-1], settings.first_side, settings.growth
        )
        return batch_loss(network, resized(images, side), labels, generator, epoch)

    fitted = fit(
        network,
        data,
        settings,
        optimization,
        at_its_side,
        conditions,
        measure=measure,
        measure_every=settings.measure_every,
        bases=digests,
    )
    return Trained(
        fitted.network,
        settings.architecture,
        settings.architecture_args,
        fitted.seconds,
        fitted.started,
        fitted.measurements,
        record={f"{name}_sha256": digest for name, digest in digests.items()},
    )


def make_network(settings: NetworkSettings, seed: int) -> nn.Module:
    """Return a freshly initialised network.

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


def check_output(
    network: nn.Module, data: TrainingData, settings: NetworkSettings, device: str
) -> None:
    """Check that a network takes the images of a data set, and has a logit for each class.

    Raises:
        InputError: If it does not.
    """
    image = data.images[torch.arange(1)].to(device)
    side = min(image.shape[-2:])
    if settings.crop_border == "reflected" and settings.crop_padding >= side:
        raise InputError(
            f"setting crop_padding: expected less than the {side} pixels of a side of {data.name}, "
            f"which are reflected, got {settings.crop_padding}"
        )
    origin = f"{settings.architecture} with {settings.architecture_args}"
    network.eval()
    try:
        with torch.no_grad():
            came = tuple(logits(network, image, settings.precision).shape)
    except (RuntimeError, ValueError, TypeError) as error:
        if is_out_of_memory(error):
            raise
        raise InputError(
            f"{origin}: expected a network that takes images {tuple(image.shape[1:])} of "
            f"{data.name}; {' '.join(str(error).split())}"
        ) from error
    classes = int(data.labels.max()) + 1
    if len(came) != 2 or came[1] < classes:
        raise InputError(
            f"{origin}: expected logits (N, K) with K >= {classes} for {data.name}, got shape "
            f"{came} for one image; set architecture_args"
        )


def sgd_in_one_cycle(network: nn.Module, settings: OneCycleSettings) -> Optimization:
    """Return stochastic gradient descent with Nesterov momentum, in one cycle.

    Weight decay applies to the weights of convolutions and linear layers only: on biases and batch
    normalisation it regularises nothing and costs accuracy.
    """
    groups: list[dict[str, Any]] = [
        {"params": [each for each in network.parameters() if each.ndim > 1]},
        {"params": [each for each in network.parameters() if each.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.SGD(
        groups,
        momentum=settings.momentum,
        nesterov=settings.momentum > 0,
        weight_decay=settings.weight_decay,
    )
    schedule = partial(one_cycle, peak=settings.peak_learning_rate, warm_up=settings.warm_up)
    return Optimization(optimizer, schedule)


def logits(network: nn.Module, images: Tensor, precision: Precision) -> Tensor:
    """Return float32 logits (N, K) of images (N, C, H, W) in [0, 1]."""
    with torch.autocast(images.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        return cast(Tensor, network(images)).float()


def clean_accuracy(
    network: nn.Module, images: Tensor, labels: Tensor, precision: Precision
) -> float:
    """Return the share of images (N, C, H, W) that a network in eval mode classifies correctly.

    It follows a training; it is no evaluation: that is what runs are for.
    """
    with torch.no_grad():
        right = [
            classes_of(logits(network, some, precision)) == theirs
            for some, theirs in zip(
                torch.split(images, MEASURED_AT_ONCE),
                torch.split(labels, MEASURED_AT_ONCE),
                strict=True,
            )
        ]
    return torch.cat(right).double().mean().item()


@contextmanager
def under_attack(network: nn.Module, training: bool) -> Iterator[None]:
    """Put a network in train or eval mode for an attack that leaves its running statistics."""
    before = network.training
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    normalizations = [module for module in network.modules() if isinstance(module, kinds)]
    momenta = [module.momentum for module in normalizations]
    network.train(training)
    for module in normalizations:
        module.momentum = 0.0
    try:
        yield
    finally:
        network.train(before)
        for module, momentum in zip(normalizations, momenta, strict=True):
            module.momentum = momentum
