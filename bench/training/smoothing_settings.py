"""The settings of trainings under Gaussian noise."""

from __future__ import annotations

from pydantic import Field

from bench.training.settings import NetworkSettings, Precision


class SmoothingSettings(NetworkSettings):
    """What every recipe for smoothed classifiers needs, as the papers have it.

    The learning rate starts at ``peak_learning_rate`` and is divided by 10 at equal distances; the
    weights are the last ones; weight decay is on all of them; momentum is the plain one.
    """

    sigma: float = Field(gt=0, allow_inf_nan=False)
    """Standard deviation of the noise, in the [0, 1] pixel scale."""
    noise_draws: int = Field(default=1, ge=1)
    """m, noisy copies of each image. A step has batch_size images, hence m times as many copies."""
    decay_every: int = Field(default=50, ge=1)
    """Epochs from one division of the learning rate by 10 to the next."""
    epochs: int = Field(default=150, ge=1)
    batch_size: int = Field(default=256, ge=1)
    peak_learning_rate: float = Field(default=0.1, gt=0)
    weight_decay: float = Field(default=1e-4, ge=0)
    """On all weights."""
    average_decay: float = Field(default=0.0, ge=0, lt=1)
    precision: Precision = "float32"


class GaussianSettings(SmoothingSettings):
    """Settings of Gaussian augmentation."""


class SmoothMixSettings(SmoothingSettings):
    """Settings of SmoothMix."""

    noise_draws: int = Field(default=2, ge=1)
    batch_size: int = Field(default=128, ge=1)
    attack_steps: int = Field(default=4, ge=1)
    """T, gradient steps to the image that is mixed in."""
    attack_step_size: float = Field(default=2.0, gt=0)
    """alpha, the L2 length of such a step, in units of sigma."""
    mix_weight: float = Field(default=5.0, ge=0)
    """eta, of the mixed term."""
    warm_up_epochs: int = Field(default=10, ge=1)
    """Until the mixed term, and the ball of the one-step adversary, have their full size."""
    one_step_adversary: bool = False
    """Whether the adversary after one step stands where the clean image would."""


class SmoothAdvSettings(SmoothingSettings):
    """Settings of adversarial training of smoothed classifiers."""

    noise_draws: int = Field(default=2, ge=1)
    batch_size: int = Field(default=128, ge=1)
    eps: float = Field(default=1.0, gt=0)
    """Radius of the L2 ball, reached after the warm-up."""
    attack_steps: int = Field(default=10, ge=1)
    """T; each is 2 eps / T long."""
    warm_up_epochs: int = Field(default=10, ge=1)


class ConsistencySettings(SmoothingSettings):
    """Settings of consistency regularization."""

    noise_draws: int = Field(default=2, ge=2)
    batch_size: int = Field(default=128, ge=1)
    consistency_weight: float = Field(default=10.0, ge=0)
    """lambda, of the divergence between copies."""
    entropy_weight: float = Field(default=0.5, ge=0)
    """eta, of the mean probabilities' entropy."""


class StabilitySettings(SmoothingSettings):
    """Settings of stability training."""

    stability_weight: float = Field(default=2.0, ge=0)
    """lambda, of the cross-entropy between the noisy and the clean image's probabilities."""


class MacerSettings(SmoothingSettings):
    """Settings of MACER."""

    noise_draws: int = Field(default=16, ge=2)
    batch_size: int = Field(default=64, ge=1)
    epochs: int = Field(default=440, ge=1)
    decay_every: int = Field(default=200, ge=1)
    peak_learning_rate: float = Field(default=0.01, gt=0)
    weight_decay: float = Field(default=5e-4, ge=0)
    radius_weight: float = Field(default=4.0, ge=0)
    """lambda, of the radius term."""
    inverse_temperature: float = Field(default=16.0, gt=0)
    """beta, a factor on the logits in the radius term."""
    hinge: float = Field(default=8.0, gt=0)
    """gamma: a difference of quantiles beyond it is not pushed further."""
    deferred_epochs: int = Field(default=0, ge=0)
    """Epochs without the radius term; the paper's at sigma = 1 has 200."""
