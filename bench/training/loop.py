"""The loop that every recipe shares: epochs, steps, the averaged weights, and resuming."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from bench.errors import InputError
from bench.training.augmentation import augment
from bench.training.average import AveragedWeights
from bench.training.checkpoint import load_checkpoint, save_checkpoint
from bench.training.image_folder import FolderImages
from bench.training.initialization import generator_for
from bench.training.progress import Measurement, Progress, ProgressCallback
from bench.training.schedule import one_cycle
from bench.training.settings import Settings

STEPS_BETWEEN_REPORTS = 50


class TrainingData(Protocol):
    """What a recipe reads of a data set."""

    @property
    def images(self) -> Tensor | FolderImages:
        """(N, C, H, W), float32, in [0, 1]; or files, which are read batch by batch."""

    @property
    def labels(self) -> Tensor:
        """(N,), int64."""


@dataclass(frozen=True)
class Trained:
    """A finished training.

    Attributes:
        network: The network with its averaged weights, in eval mode.
        seconds: Wall-clock time, in earlier runs of a resumed training too.
        started: When its first run began, in ISO 8601, UTC.
        measurements: On the held-out images, oldest first.
    """

    network: nn.Module
    seconds: float
    started: str
    measurements: tuple[Measurement, ...]


BatchLoss = Callable[[nn.Module, Tensor, Tensor, torch.Generator, int], Tensor]
"""Scalar loss of a network in train mode on images (N, C, H, W) with labels (N,), in an epoch."""

Measure = Callable[[int, nn.Module, Tensor, Tensor], Measurement]
"""After an epoch, accuracies of a network in eval mode on images (N, C, H, W), labels (N,)."""


def fit(
    network: nn.Module,
    data: TrainingData,
    settings: Settings,
    batch_loss: BatchLoss,
    measure: Measure,
    *,
    seed: int,
    checkpoint: Path | None,
    resume: bool,
    progress: ProgressCallback,
    device: torch.device,
    optimizer: Callable[[nn.Module], torch.optim.Optimizer] | None = None,
    learning_rate: Callable[[int, int], float] | None = None,
) -> Trained:
    """Minimise a loss by stochastic gradient descent.

    The result depends on the arguments only, bit for bit on the same machine with the same number
    of threads; also when the training was interrupted and resumed at a checkpoint.

    Args:
        network: Changed in place; the averaged weights are those of the result.
        data: Training images and labels.
        settings: The recipe's settings.
        batch_loss: The loss of a batch.
        measure: Called on the averaged weights and the held-out images.
        seed: Of the order of the images, the augmentation and the loss's draws.
        checkpoint: File written after every epoch; None for none.
        resume: Whether to start from that file, if it exists.
        progress: Called every few steps and after every epoch.
        device: Where the passes run. Draws are made on the CPU, the same for each device.
        optimizer: Makes the network's optimizer; None for one with Nesterov momentum.
        learning_rate: From a step, from 0, and the number of all steps; None for one cycle.

    Raises:
        InputError: If the checkpoint belongs to another training, or no image is left to train on.
    """
    make_optimizer = optimizer or partial(_nesterov, settings=settings)
    rate = learning_rate or partial(
        one_cycle, peak=settings.peak_learning_rate, warm_up=settings.warm_up
    )
    training = _Training(network, data, settings, batch_loss, make_optimizer, rate, seed, device)
    if resume and checkpoint is not None and checkpoint.exists():
        training.restore(checkpoint)
    while training.epoch < settings.epochs:
        training.run_epoch(progress)
        measurement = training.run_measurement(measure) if training.measurement_is_due else None
        if checkpoint is not None:
            training.save(checkpoint)
        progress(training.state(measurement))
    return Trained(
        training.average.network, training.seconds, training.started, tuple(training.measurements)
    )


class _Training:
    """A training: what a checkpoint holds of it, and what one epoch does."""

    def __init__(
        self,
        network: nn.Module,
        data: TrainingData,
        settings: Settings,
        batch_loss: BatchLoss,
        make_optimizer: Callable[[nn.Module], torch.optim.Optimizer],
        rate: Callable[[int, int], float],
        seed: int,
        device: torch.device,
    ) -> None:
        self.network = network.to(device).to(memory_format=torch.channels_last)
        self.data, self.settings, self.batch_loss = data, settings, batch_loss
        self.seed, self.device = seed, device
        self.images, self.held_out = _split(len(data.labels), settings.held_out, seed)
        self.batch_size = min(settings.batch_size, len(self.images))
        # An incomplete last batch would disturb the statistics of batch normalisation; who is left
        # out differs from epoch to epoch.
        self.batches = len(self.images) // self.batch_size
        self.optimizer, self.rate = make_optimizer(network), rate
        self.average = AveragedWeights(network, settings.average_decay)
        self.epoch = self.step = 0
        self.loss = self.learning_rate = 0.0
        self.began = time.monotonic()
        self.started = datetime.now(UTC).isoformat(timespec="seconds")
        self.measurements: list[Measurement] = []

    @property
    def seconds(self) -> float:
        """Wall-clock time, up to the last checkpoint of each earlier run and in this one."""
        return time.monotonic() - self.began

    def run_epoch(self, progress: ProgressCallback) -> None:
        generator = generator_for(self.seed, 1, self.epoch)
        order = self.images[torch.randperm(len(self.images), generator=generator)]
        self.network.train()
        total = torch.zeros((), device=self.device)
        for batch in range(self.batches):
            chosen = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            total += self._run_step(chosen, generator)
            if self.step % STEPS_BETWEEN_REPORTS == 0 and batch + 1 < self.batches:
                self.loss = total.item() / (batch + 1)
                progress(self.state())
        self.loss = total.item() / self.batches
        self.epoch += 1

    def _run_step(self, chosen: Tensor, generator: torch.Generator) -> Tensor:
        settings = self.settings
        source = self.data.images
        if isinstance(source, FolderImages):
            images = source.random_crops(chosen, generator)
        else:
            images = source[chosen]
        images = augment(
            images,
            settings.crop_padding,
            settings.flip,
            settings.cutout,
            generator,
        ).to(self.device)
        labels = self.data.labels[chosen].to(self.device)
        self.learning_rate = self.rate(self.step, settings.epochs * self.batches)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate
        loss = self.batch_loss(self.network, images, labels, generator, self.epoch)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.average.update(self.network)
        self.step += 1
        return loss.detach()

    @property
    def measurement_is_due(self) -> bool:
        is_last = self.epoch == self.settings.epochs
        is_due = is_last or self.epoch % self.settings.measure_every == 0
        return is_due and len(self.held_out) > 0

    def run_measurement(self, measure: Measure) -> Measurement:
        measurement = measure(
            self.epoch,
            self.average.network,
            self.data.images[self.held_out].to(self.device),
            self.data.labels[self.held_out].to(self.device),
        )
        self.measurements.append(measurement)
        return measurement

    def state(self, measurement: Measurement | None = None) -> Progress:
        return Progress(
            epoch=self.epoch,
            epochs=self.settings.epochs,
            step=self.step,
            steps=self.settings.epochs * self.batches,
            seconds=self.seconds,
            loss=self.loss,
            learning_rate=self.learning_rate,
            measurement=measurement,
        )

    def save(self, path: Path) -> None:
        content = {
            "identity": self._identity(),
            "network": self.network.state_dict(),
            "average": self.average.network.state_dict(),
            "average_steps": self.average.steps,
            "optimizer": self.optimizer.state_dict(),
            "measurements": [asdict(measurement) for measurement in self.measurements],
            "epoch": self.epoch,
            "seconds": self.seconds,
            "started": self.started,
        }
        save_checkpoint(path, content)

    def restore(self, path: Path) -> None:
        stored = load_checkpoint(path)
        identity = self._identity()
        if stored.get("identity") != identity:
            raise InputError(
                f"{path}: expected a checkpoint of this training, {identity}, got one of "
                f"{stored.get('identity')}; delete it, or repeat its settings"
            )
        self.network.load_state_dict(stored["network"])
        self.average.network.load_state_dict(stored["average"])
        self.average.steps = stored["average_steps"]
        self.optimizer.load_state_dict(stored["optimizer"])
        self.measurements = [Measurement(**fields) for fields in stored["measurements"]]
        self.epoch = stored["epoch"]
        self.step = self.epoch * self.batches
        self.began = time.monotonic() - stored["seconds"]
        self.started = stored["started"]

    def _identity(self) -> dict[str, Any]:
        return {
            "settings": self.settings.model_dump_json(),
            "seed": self.seed,
            "images": len(self.data.labels),
        }


def _split(count: int, held_out: int, seed: int) -> tuple[Tensor, Tensor]:
    """Indices of the images to train on, and of the held-out ones."""
    if held_out >= count:
        raise InputError(
            f"expected held_out below the {count} training images, got {held_out}; lower it"
        )
    order = torch.randperm(count, generator=generator_for(seed, 0))
    return order[held_out:].sort().values, order[:held_out].sort().values


def _nesterov(network: nn.Module, settings: Settings) -> torch.optim.SGD:
    # Decay on biases and on batch normalisation regularises nothing and costs accuracy.
    groups: list[dict[str, Any]] = [
        {"params": [each for each in network.parameters() if each.ndim > 1]},
        {"params": [each for each in network.parameters() if each.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.SGD(
        groups,
        lr=settings.peak_learning_rate,
        momentum=settings.momentum,
        nesterov=settings.momentum > 0,
        weight_decay=settings.weight_decay,
    )
