"""What a recipe gets beside its settings, and what it hands over at the end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from bench.training.image_folder import FolderImages
from bench.training.progress import Measurement, ProgressCallback, ignore


class TrainingData(Protocol):
    """What a recipe reads of a data set."""

    @property
    def name(self) -> str:
        """As suites and submissions write it."""

    @property
    def images(self) -> Tensor | FolderImages:
        """(N, C, H, W), float32, in [0, 1]; or files, which are read batch by batch."""

    @property
    def labels(self) -> Tensor:
        """(N,), int64."""


@dataclass(frozen=True)
class Conditions:
    """Under which a training runs.

    Attributes:
        seed: Of the initial weights and of every draw.
        checkpoint: File written after every epoch; None for none.
        resume: Whether to go on from that file, if it exists.
        progress: Called every few steps, after every epoch, and when a mix's numbers were tried.
        device: Where the passes run, as torch names it. Draws are made on the CPU, the same for
            each device.
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
        network: What was trained, in eval mode; None if nothing was but a choice made.
        architecture: ``module:function`` of the whole candidate.
        architecture_args: The function's arguments, beside the bases.
        seconds: Wall-clock time, in earlier runs of a resumed training too.
        started: When its first run began, in ISO 8601, UTC.
        measurements: On the held-out images, oldest first.
        bases: Of a mix: names of its candidates, by "accurate" and "robust".
        record: What else is worth knowing, in plain values.
    """

    network: nn.Module | None
    architecture: str
    architecture_args: dict[str, Any]
    seconds: float
    started: str
    measurements: tuple[Measurement, ...] = ()
    bases: Mapping[str, str] = field(default_factory=dict)
    record: Mapping[str, Any] = field(default_factory=dict)
