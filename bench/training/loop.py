"""The loop that recipes share: epochs, steps, the averaged weights, and resuming."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import torch
from pydantic import Field
from torch import Tensor, nn

from bench.errors import EvaluationError
from bench.memory.allocator import keep_freed_memory
from bench.training.data import (
    Border,
    FolderImages,
    TrainingData,
    alternating_flips,
    augment,
    split,
)
from bench.training.draws import EPOCHS, generator_for
from bench.training.files import check_same_training, load_checkpoint, save_checkpoint
from bench.training.optimization import RATE_FACTOR, Optimization, averaged_model
from bench.training.recipe import (
    Conditions,
    Measurement,
    ProgressCallback,
    TrainingProgress,
    TrainingSettings,
)

STEPS_BETWEEN_REPORTS = 50
CHECKPOINT_FORMAT = 2
"""Changes when an older checkpoint can no longer be resumed."""


class LoopSettings(TrainingSettings):
    """The settings of the loop over epochs and steps. Pixels are in the [0, 1] scale."""

    read_after_the_loop: ClassVar[frozenset[str]] = frozenset()
    """Names of settings that the loop does not depend on: a checkpoint fits any value of them."""
    epochs: int = Field(ge=1)
    """How often the training goes through its images."""
    batch_size: int = Field(default=128, ge=1)
    """Images in a step."""
    images_per_epoch: int | None = Field(default=None, ge=1)
    """How many images an epoch takes, drawn anew for each; None for all."""
    peak_learning_rate: float = Field(default=0.2, gt=0)
    """The highest learning rate of the schedule."""
    weight_decay: float = Field(default=5e-4, ge=0)
    """How strongly the optimizer pulls the weights towards 0, as PyTorch takes it."""
    crop_padding: int = Field(default=0, ge=0)
    """Width in pixels of the border, out of which a random crop of the image's size is taken."""
    crop_border: Border = "black"
    """What the border shows: black, or the image's own pixels, reflected."""
    flip: Literal[False, True, "alternating"] = False
    """Whether half of the images are mirrored left to right: at random, or each in turn."""
    cutout: int = Field(default=0, ge=0)
    """Side of the random square that is blacked out, in pixels; 0 for none."""
    average_decay: float = Field(default=0.999, ge=0, lt=1)
    """Decay, per step, of the exponential moving average of the weights; 0 keeps the last ones."""


@dataclass(frozen=True)
class Fitted:
    """A network at the end of its training.

    Attributes:
        network: With the averaged weights, in eval mode.
        seconds: Wall-clock time, including earlier runs of a resumed training.
        started: When its first run began, in ISO 8601, UTC.
        measurements: On the held-out images, oldest first.
    """

    network: nn.Module
    seconds: float
    started: str
    measurements: tuple[Measurement, ...]


BatchLoss = Callable[[nn.Module, Tensor, Tensor, torch.Generator, int], Tensor]
"""From a network in train mode, images (N, C, H, W), labels (N,), a source of draws on the CPU and
the epoch, from 0, to a scalar loss."""

Measure = Callable[[int, nn.Module, Tensor, Tensor], Measurement]
"""From the finished epochs, a network in eval mode, images (N, C, H, W) and labels (N,) to
accuracies."""


class Memory(Protocol):
    """What a loss keeps of each image from one batch to a later one; checkpoints hold it."""

    def begin(self, chosen: Tensor) -> None:
        """Take note of which images (n,), as indices in the data, the next batch has."""

    def state_dict(self) -> dict[str, Tensor]:
        """Return what is kept."""

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take up what was kept."""


def fit(
    network: nn.Module,
    data: TrainingData,
    settings: LoopSettings,
    optimization: Optimization,
    batch_loss: BatchLoss,
    conditions: Conditions,
    *,
    measure: Measure | None = None,
    measure_every: int = 1,
    bases: Mapping[str, str] | None = None,
    images: Tensor | None = None,
    memory: Memory | None = None,
) -> Fitted:
    """Minimise a loss, epoch by epoch.

    The result depends on the arguments alone, bit for bit on the same machine with the same number
    of threads, also when the training was interrupted and resumed from a checkpoint.

    Args:
        network: On the conditions' device. Its weights are changed in place.
        data: Training images and labels.
        settings: The recipe's settings.
        optimization: The optimizer of the network's parameters.
        batch_loss: The loss of a batch.
        conditions: The seed decides the order of the images, the augmentation and the loss's draws.
        measure: Called on the averaged weights and the held-out images.
        measure_every: Epochs from one measurement to the next; the last epoch always has one.
        bases: Digests of what else the loss depends on, by name. A checkpoint is valid for the same
            ones only.

    Raises:
        InputError: If the checkpoint belongs to another training, or no image is left to train on.
        EvaluationError: If the loss is no longer finite.
    """
    keep_freed_memory(torch.device(conditions.device))
    training = _Training(
        network, data, settings, optimization, batch_loss, conditions, bases or {}, images, memory
    )
    checkpoint = conditions.checkpoint
    if conditions.resume and checkpoint is not None and checkpoint.exists():
        training.restore(checkpoint)
    while training.epoch < settings.epochs:
        training.run_epoch(conditions.progress)
        is_due = training.epoch == settings.epochs or training.epoch % measure_every == 0
        measurement = training.run_measurement(measure) if measure and is_due else None
        if checkpoint is not None:
            training.save(checkpoint)
        conditions.progress(training.state(measurement))
    return Fitted(
        training.average.module, training.seconds, training.started, tuple(training.measurements)
    )


class _Training:
    """A training: what one epoch does, and what a checkpoint holds."""

    def __init__(
        self,
        network: nn.Module,
        data: TrainingData,
        settings: LoopSettings,
        optimization: Optimization,
        batch_loss: BatchLoss,
        conditions: Conditions,
        bases: Mapping[str, str],
        chosen: Tensor | None,
        memory: Memory | None,
    ) -> None:
        self.network = network.to(memory_format=torch.channels_last)
        self.data, self.settings, self.batch_loss = data, settings, batch_loss
        self.optimization, self.optimizer = optimization, optimization.optimizer
        self.seed, self.device = conditions.seed, torch.device(conditions.device)
        self.bases = dict(bases)
        self.memory = memory
        self.images, self.held_out = split(len(data.labels), settings.held_out, self.seed)
        if chosen is not None:
            self.images = chosen
        images = min(settings.images_per_epoch or len(self.images), len(self.images))
        self.batch_size = min(settings.batch_size, images)
        # An incomplete last batch would disturb the statistics of batch normalisation. Each epoch
        # leaves out other images.
        self.batches = images // self.batch_size
        self.average = averaged_model(network, settings.average_decay)
        self.epoch = self.step = 0
        self.loss = self.learning_rate = 0.0
        self.began = time.monotonic()
        self.started = datetime.now(UTC).isoformat(timespec="seconds")
        self.measurements: list[Measurement] = []

    @property
    def seconds(self) -> float:
        """Wall-clock time of this run, and of earlier runs up to their last checkpoint."""
        return time.monotonic() - self.began

    def run_epoch(self, progress: ProgressCallback) -> None:
        generator = generator_for(self.seed, EPOCHS, self.epoch)
        order = self.images[torch.randperm(len(self.images), generator=generator)]
        self.network.train()
        total = torch.zeros((), device=self.device)
        chosen = torch.split(order[: self.batches * self.batch_size], self.batch_size)
        batch = self._load(chosen[0], generator)
        for done, following in enumerate((*chosen[1:], None), start=1):
            if self.memory is not None:
                self.memory.begin(chosen[done - 1])
            total += self._run_step(*batch, generator)
            # A GPU is still at the step: load the next batch in the meantime.
            if following is not None:
                batch = self._load(following, generator)
            self.average.update_parameters(self.network)
            if self.step % STEPS_BETWEEN_REPORTS == 0 and done < self.batches:
                self.loss = total.item() / done
                progress(self.state())
        self.loss = total.item() / self.batches
        self.epoch += 1
        if not math.isfinite(self.loss):
            raise EvaluationError(
                f"expected a finite training loss, got {self.loss} in epoch {self.epoch}; lower "
                "peak_learning_rate"
            )

    def _load(self, chosen: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        images = training_images(self.data, chosen, self.settings, generator, self.seed, self.epoch)
        return self._send(images), self._send(self.data.labels[chosen])

    def _send(self, values: Tensor) -> Tensor:
        """Return a tensor on the device; only from pinned memory is it copied without waiting."""
        if self.device.type == "cuda":
            values = values.pin_memory()
        return values.to(self.device, non_blocking=True)

    def _run_step(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        steps = self.settings.epochs * self.batches
        self.learning_rate = self.optimization.schedule(self.step, steps)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate * group.get(RATE_FACTOR, 1.0)
        loss = self.batch_loss(self.network, images, labels, generator, self.epoch)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if self.optimization.gradient_clip is not None:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.optimization.gradient_clip)
        self.optimizer.step()
        self.step += 1
        return loss.detach()

    def run_measurement(self, measure: Measure) -> Measurement | None:
        if not len(self.held_out):
            return None
        measurement = measure(
            self.epoch,
            self.average.module,
            self.data.images[self.held_out].to(self.device),
            self.data.labels[self.held_out].to(self.device),
        )
        self.measurements.append(measurement)
        return measurement

    def state(self, measurement: Measurement | None = None) -> TrainingProgress:
        return TrainingProgress(
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
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "measurements": [asdict(measurement) for measurement in self.measurements],
            "epoch": self.epoch,
            "seconds": self.seconds,
            "started": self.started,
            **({} if self.memory is None else {"memory": self.memory.state_dict()}),
        }
        save_checkpoint(path, content)

    def restore(self, path: Path) -> None:
        stored = load_checkpoint(path)
        check_same_training(path, stored.get("identity"), self._identity())
        self.network.load_state_dict(stored["network"])
        self.average.load_state_dict(stored["average"])
        self.optimizer.load_state_dict(stored["optimizer"])
        if self.memory is not None:
            self.memory.load_state_dict(stored["memory"])
        self.measurements = [Measurement(**fields) for fields in stored["measurements"]]
        self.epoch = stored["epoch"]
        self.step = self.epoch * self.batches
        self.began = time.monotonic() - stored["seconds"]
        self.started = stored["started"]

    def _identity(self) -> dict[str, Any]:
        return {
            "format": CHECKPOINT_FORMAT,
            "settings": self.settings.model_dump(
                mode="json", exclude=set(self.settings.read_after_the_loop)
            ),
            "seed": self.seed,
            "images": len(self.data.labels),
            **({"bases": self.bases} if self.bases else {}),
        }


def training_images(
    data: TrainingData,
    chosen: Tensor,
    settings: LoopSettings,
    generator: torch.Generator,
    seed: int,
    epoch: int,
) -> Tensor:
    """Return augmented images (n, C, H, W); from a folder, random parts of them.

    Args:
        data: Training images.
        chosen: Indices (n,) of the images.
        settings: The recipe's settings.
        generator: Source of the draws; on the CPU.
        seed: The training's; with the epoch, it decides which images alternating flips mirror.
        epoch: From 0.
    """
    source = data.images
    if isinstance(source, FolderImages):
        images = source.random_crops(chosen, generator)
    else:
        images = source[chosen]
    flip: bool | Tensor
    if settings.flip == "alternating":
        flip = alternating_flips(chosen, len(data.labels), seed, epoch)
    else:
        flip = settings.flip
    return augment(
        images, settings.crop_padding, flip, settings.cutout, generator, settings.crop_border
    )
