"""The settings of a training: everything but the seed and the data that decides its outcome."""

from __future__ import annotations

from fractions import Fraction
from typing import Annotated, Any, Literal

from pydantic import Field

from bench.validation import Number, StrictModel

Precision = Literal["bfloat16", "float32"]


class Settings(StrictModel):
    """What every recipe needs."""

    held_out: int = Field(default=0, ge=0)
    """Training images that are not trained on, for following the progress and for choices."""

    def threat_models(self) -> list[dict[str, Any]]:
        """What the candidate is trained to withstand, as ``norm`` and ``eps``."""
        return []


class LoopSettings(Settings):
    """What the loop over epochs and steps needs. Pixels are in the [0, 1] scale."""

    epochs: int = Field(ge=1)
    batch_size: int = Field(default=128, ge=1)
    images_per_epoch: int | None = Field(default=None, ge=1)
    """How many images an epoch takes, drawn anew for each; None for all."""
    peak_learning_rate: float = Field(default=0.2, gt=0)
    weight_decay: float = Field(default=5e-4, ge=0)
    crop_padding: int = Field(default=0, ge=0)
    """Pixels of black border out of which a random crop of the image's size is taken."""
    flip: bool = False
    """Whether half of the images, at random, are mirrored left to right."""
    cutout: int = Field(default=0, ge=0)
    """Side of the random square that is blacked out, in pixels; 0 for none."""
    average_decay: float = Field(default=0.999, ge=0, lt=1)
    """Decay, per step, of the exponential moving average of the weights; 0 keeps the last ones."""


class NetworkSettings(LoopSettings):
    """What the training of a network from random weights needs."""

    architecture: str
    """Where the function lies that makes the network, as ``module:function``."""
    architecture_args: dict[str, Any] = Field(default_factory=dict)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    precision: Precision = "bfloat16"
    """Of the arithmetic in a pass through the network; weights are always float32."""
    measure_every: int = Field(default=1, ge=1)
    """Epochs from one measurement on the held-out images to the next."""


class OneCycleSettings(NetworkSettings):
    """What a training on clean or attacked images in one cycle needs."""

    warm_up: float = Field(default=0.25, ge=0, lt=1)
    """Share of the training in which the learning rate rises."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)


class AdversarialSettings(OneCycleSettings):
    """Settings of adversarial training in the Linf ball."""

    eps: Annotated[Number, Field(gt=0, le=1)]
    """Radius of the threat model."""
    attack_steps: int = Field(default=1, ge=1)
    attack_step_size: float = Field(default=1.0, gt=0)
    """In units of eps."""
    attack_noise: float = Field(default=1.0, ge=0)
    """Half-width of the uniform noise that the attack starts from, in units of eps."""
    attack_projects: bool = True
    """Whether the adversarial image is brought back into the eps-ball; N-FGSM leaves it out."""
    attack_mode: Literal["train", "eval"] = "train"
    """Mode of the network under attack: batch-normalised by the batch, or by running statistics.

    In neither do the attack's images enter the running statistics."""

    def threat_models(self) -> list[dict[str, Any]]:
        """The Linf ball of the training."""
        return [{"norm": "Linf", "eps": readable_radius(self.eps)}]


def readable_radius(eps: float) -> str | float:
    """The radius as the field writes it: 0.2, but 8/255 for 0.03137254901960784."""
    levels = round(eps * 255)
    is_fraction = levels > 0 and float(Fraction(levels, 255)) == eps
    return f"{levels}/255" if is_fraction and len(repr(eps)) > len("0.0314") else eps
