"""Training of a mixing network, on clean images and on images attacked on the current mix.

Y. Bai et al., "Improving the Accuracy-Robustness Trade-Off of Classifiers via Adaptive Smoothing",
SIMODS 2024, arXiv 2301.12554, section 4. The bases are frozen. In training and in its attacks
alpha is the sigmoid of gamma, unless `training_range` says otherwise; its range and the scales are
chosen afterwards.
"""

from __future__ import annotations

from functools import partial
from itertools import combinations, product
from typing import ClassVar, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from bench.candidates.adaptive_mix import AdaptiveMix
from bench.candidates.mix import MixAnswer
from bench.candidates.mixing_network import MixingNetwork
from bench.errors import InputError
from bench.training.data import TrainingData, split
from bench.training.draws import initialised
from bench.training.files import compact
from bench.training.loop import Fitted, LoopSettings, fit, training_images
from bench.training.mix import LoadedBases, MixSettings, Scale, with_fast_bases
from bench.training.mix_answers import MixNumbers, right_weights
from bench.training.mix_attack import (
    Fractions,
    MixAttackSettings,
    attacked_again,
    attacked_copies,
)
from bench.training.mix_search import choose
from bench.training.optimization import Optimization, cosine
from bench.training.perturbation_memory import PerturbationMemory
from bench.training.recipe import Conditions, Trained, register_recipe

NORM_MOMENTUM = 0.01
"""The momentum of the batch norm over gamma, once it has seen a hundred batches."""

FARTHEST_TURN = 6.0
"""The highest gamma, and the lowest, that a loss asks for."""

NEUTRAL: MixNumbers = {
    "alpha_scale": 1.0,
    "alpha_bias": 0.0,
    "gamma_scale": 1.0,
    "gamma_bias": 0.0,
    "accurate_scale": 1.0,
    "robust_scale": 1.0,
}


class MixingNetworkSettings(MixSettings, LoopSettings, MixAttackSettings):
    """The settings of the training of a mixing network, by default those of arXiv 2301.12554."""

    read_after_the_loop: ClassVar[frozenset[str]] = frozenset(
        {
            "allowed_loss", "search_steps", "search_targets", "final_steps", "final_targets",
            "alpha_step", "gamma_scales", "gamma_biases", "lowest_alpha",
        }
    )  # fmt: skip
    held_out: int = Field(default=500, ge=1)
    accurate_layers: tuple[str, str]
    """Submodules of the accurate base whose outputs the mixing network reads."""
    robust_layers: tuple[str, str]
    """The same of the robust base."""
    version: int = 4
    """3 adds the second pair of feature maps as they are, 4 through a 1x1 convolution."""
    planes: tuple[int, ...]
    """Channels of the mixing network's blocks."""

    epochs: int = Field(default=3, ge=1)
    batch_size: int = Field(default=32, ge=1)
    """Images that are attacked in a step; the loss sees twice as many for each run of an attack."""
    peak_learning_rate: float = Field(default=1e-4, gt=0)
    warm_up: float = Field(default=1 / 25, ge=0, lt=1)
    """Share of the training after which the learning rate has reached 1 - 1/e of its course."""
    weight_decay: float = Field(default=1e-5, ge=0)
    gradient_clip: float = Field(default=10.0, gt=0)
    """The largest L2 norm of all gradients together."""
    average_decay: float = Field(default=0.0, ge=0, lt=1)

    cross_entropy: float = Field(default=0.0, ge=0)
    """c_ce, the weight of the mix's cross-entropy."""
    mixing_entropy: float = Field(default=1.5, ge=0)
    """c_bce, the weight of gamma's binary cross-entropy: attacked or not."""
    product: float = Field(default=0.2, ge=0)
    """c_prod, the weight of the two's product."""
    turning: float = Field(default=0.0, ge=0)
    """The weight of the loss on how far gamma is from where the mix's answer turns right; not in
    the paper, see `turning_loss`."""
    clean_weight: float = Field(default=1.0, gt=0)
    """A factor on the loss of a clean image."""

    kept_images: int | None = Field(default=None, ge=1)
    """How many training images take part. Each is attacked once a visit, from where its last attack
    ended, which needs images without augmentation. None: all take part, and nothing is kept."""
    training_range: Fractions = (0.0, 1.0)
    """The range of alpha in training; (0, 1) in the paper."""

    alpha_step: float = Field(default=0.05, gt=0, le=1)
    """Distance of the ends of alpha's range to choose from: 1, 1 - alpha_step, ..., 0."""
    gamma_scales: tuple[Scale, ...] = Field(default=(1.0, 2.0, 4.0), min_length=1)
    """Factors on gamma to choose from."""
    gamma_biases: tuple[float, ...] = Field(default=(0.0, 0.4, 1.0, 1.6), min_length=1)
    """What is added to gamma, to choose from."""
    lowest_alpha: float = Field(default=0.0, ge=0, lt=1)
    """The lowest end to choose from."""

    @model_validator(mode="after")
    def _kept_perturbations_fit(self) -> Self:
        if self.kept_images is not None and (self.crop_padding or self.flip or self.cutout):
            raise ValueError(
                "kept_images: expected crop_padding 0, flip false and cutout 0, since a kept "
                "perturbation fits one view of an image"
            )
        return self


def train(settings: MixingNetworkSettings, data: TrainingData, conditions: Conditions) -> Trained:
    """Train a mixing network, then choose the numbers of its mix; see ``Recipe.train``.

    A checkpoint of the trained network also serves a choice with other settings.
    """
    training, held_out = split(len(data.labels), settings.held_out, conditions.seed)
    bases = LoadedBases(settings, data.name)
    seen = bases.images_seen(data, settings.held_out, conditions.seed)
    mix = _make_mix(settings, bases, data, conditions)
    fitted = _fit(mix, bases, data, training[: settings.kept_images], settings, conditions)
    # Rounded as in the weights file, so that the choice is made for the mix that is written.
    mix.mixing_network.load_state_dict(compact(fitted.network.state_dict()))
    mix.eval()
    choice = choose(
        lambda numbers: configured(mix, numbers),
        NEUTRAL,
        number_grid(settings),
        data.images[held_out].to(conditions.device),
        data.labels[held_out].to(conditions.device),
        bases.threat_model,
        settings,
        conditions,
    )
    return Trained(
        network=mix.mixing_network,
        architecture="bench.candidates.adaptive_mix:AdaptiveMix",
        architecture_args={
            "accurate_layers": list(settings.accurate_layers),
            "robust_layers": list(settings.robust_layers),
            "version": settings.version,
            "planes": list(settings.planes),
            **choice.numbers,
        },
        seconds=fitted.seconds + choice.seconds,
        started=fitted.started,
        bases=bases.names,
        record={"bases_sha256": bases.sha256, "held_out_images_seen": seen}
        | choice.record(len(held_out)),
    )


def _fit(
    mix: AdaptiveMix,
    bases: LoadedBases,
    data: TrainingData,
    chosen: Tensor,
    settings: MixingNetworkSettings,
    conditions: Conditions,
) -> Fitted:
    """Train a mix's network on the images `chosen` (n,); a batch is attacked on the mix as it is.

    Raises:
        InputError: If perturbations are to be kept of images that are read from a folder.
    """
    memory = _memory(settings, data, chosen)

    def batch_loss(
        network: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator, epoch: int
    ) -> Tensor:
        # In eval mode no image depends on the others in its batch.
        network.eval()
        threat_model = bases.threat_model
        if memory is None:
            attacked = attacked_copies(mix, images, labels, threat_model, settings, generator)
        else:
            attacked = attacked_again(
                mix, images, labels, threat_model, settings, memory, generator
            )
        network.train()
        drawn = chosen[torch.randint(len(chosen), (len(attacked),), generator=generator)]
        clean = training_images(data, drawn, settings, generator, conditions.seed, epoch)
        clean_labels = data.labels[drawn].to(labels.device)
        warm_up_norm(mix.mixing_network.bn)
        with settings.passes_on(attacked.device):
            answer = mix.answer(torch.cat((attacked, clean.to(attacked.device))))
        attacked_labels = labels.repeat(len(attacked) // len(labels))
        return loss_of(
            answer, torch.cat((attacked_labels, clean_labels)), len(attacked), settings
        ).mean()

    return fit(
        mix.mixing_network,
        data,
        settings,
        _adamw(mix.mixing_network, settings),
        batch_loss,
        conditions,
        bases=bases.sha256,
        images=chosen,
        memory=memory,
    )


def loss_of(
    answer: MixAnswer, labels: Tensor, attacked: int, settings: MixingNetworkSettings
) -> Tensor:
    """Return c_ce CE + c_bce BCE(gamma, t) + c_prod CE BCE of each image; t: whether attacked.

    With the weight `turning`, the loss of that name is added.

    Args:
        answer: The mix's answer to N images.
        labels: (N,) int64.
        attacked: How many images are attacked; they come first, the others are clean.
        settings: The weights of the terms and of clean images.

    Returns:
        (N,).
    """
    assert answer.gamma is not None
    is_attacked = (torch.arange(len(labels), device=labels.device) < attacked).to(answer.gamma)
    entropy = functional.nll_loss(answer.log_probabilities, labels, reduction="none")
    mixing = functional.binary_cross_entropy_with_logits(
        answer.gamma, is_attacked, reduction="none"
    )
    loss = (
        settings.cross_entropy * entropy
        + settings.mixing_entropy * mixing
        + settings.product * entropy * mixing
    )
    if settings.turning:
        loss = loss + settings.turning * turning_loss(answer, labels, settings.training_range)
    return loss * torch.where(is_attacked == 1, 1.0, settings.clean_weight)


def turning_loss(answer: MixAnswer, labels: Tensor, alpha_range: tuple[float, float]) -> Tensor:
    """Return a logistic loss on gamma's distance to where each answer turns right, (N,).

    A mix is right on an image if its weight lies in an interval that its bases decide. An image
    whose answer is the same at all weights, right or wrong, has loss 0: no weight changes it. It is
    a smooth form of the mix's own errors, where the binary cross-entropy asks for a high weight on
    every attacked image, also where the robust base is wrong too.

    Args:
        answer: The mix's answer to N images.
        labels: (N,) int64.
        alpha_range: The ends of alpha's range.
    """
    assert answer.gamma is not None
    start, end = alpha_range
    low, high = right_weights(answer.accurate.exp(), answer.robust.exp(), labels)
    can_be_right = (low < high) & (low < end) & (high > start)

    def turn(weight: Tensor) -> Tensor:
        """Return the gamma at which alpha is a weight (N,), at most so far from 0."""
        share = ((weight - start) / (end - start)).clamp(0, 1)
        return torch.logit(share).clamp(-FARTHEST_TURN, FARTHEST_TURN)

    too_low = functional.softplus(turn(low) - answer.gamma)
    too_high = functional.softplus(answer.gamma - turn(high))
    return torch.where(can_be_right & (low > start), too_low, 0) + torch.where(
        can_be_right & (high < end), too_high, 0
    )


def warm_up_norm(norm: nn.BatchNorm1d) -> None:
    """Set the momentum for the next batch, so that the first hundred are averaged equally.

    With the published momentum from the start, the running statistics of a short training would
    still depend on their initial values, 0 and 1.
    """
    assert norm.num_batches_tracked is not None
    norm.momentum = max(NORM_MOMENTUM, 1 / (int(norm.num_batches_tracked) + 1))


def number_grid(settings: MixingNetworkSettings) -> list[MixNumbers]:
    """Return every combination of alpha's range, gamma's scale and bias, and the bases' scales."""
    ends = [
        max(round(1 - settings.alpha_step * step, 6), 0.0)
        for step in range(int(1 / settings.alpha_step) + 1)
    ]
    ends = [end for end in ends if end >= settings.lowest_alpha]
    return [
        {
            "alpha_scale": round(high - low, 6),
            "alpha_bias": low,
            "gamma_scale": gamma_scale,
            "gamma_bias": gamma_bias,
            "accurate_scale": accurate,
            "robust_scale": robust,
        }
        for (high, low), gamma_scale, gamma_bias, accurate, robust in product(
            combinations(ends, 2),
            settings.gamma_scales,
            settings.gamma_biases,
            settings.accurate_scales,
            settings.robust_scales,
        )
    ]


def configured(mix: AdaptiveMix, numbers: MixNumbers) -> AdaptiveMix:
    """Set the numbers of a mix, as they apply in evaluation, and return the same mix."""
    network = mix.mixing_network
    network.bare = False
    network.alpha_scale, network.alpha_bias = numbers["alpha_scale"], numbers["alpha_bias"]
    network.gamma_scale, network.gamma_bias = numbers["gamma_scale"], numbers["gamma_bias"]
    mix.accurate_scale, mix.robust_scale = numbers["accurate_scale"], numbers["robust_scale"]
    return mix


def _adamw(network: nn.Module, settings: MixingNetworkSettings) -> Optimization:
    """Return AdamW with weight decay on every parameter, in a cosine with a warm-up."""
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=settings.weight_decay)
    schedule = partial(cosine, peak=settings.peak_learning_rate, warm_up=settings.warm_up)
    return Optimization(optimizer, schedule, settings.gradient_clip)


def _memory(
    settings: MixingNetworkSettings, data: TrainingData, images: Tensor
) -> PerturbationMemory | None:
    """Return a memory of the images (n,), if perturbations are kept.

    Raises:
        InputError: If the images are read from a folder, in another view each time.
    """
    if settings.kept_images is None:
        return None
    if not isinstance(data.images, Tensor):
        raise InputError("kept_images: expected images in memory, got a folder; set it to null")
    return PerturbationMemory(images, data.images.shape[1:])


def _make_mix(
    settings: MixingNetworkSettings, bases: LoadedBases, data: TrainingData, conditions: Conditions
) -> AdaptiveMix:
    """Return a mix of fast copies of the bases and a freshly initialised mixing network."""
    low, high = settings.training_range
    examples = data.images[torch.arange(min(len(data.labels), 8))]

    def make() -> AdaptiveMix:
        return AdaptiveMix(
            bases.accurate,
            bases.robust,
            image_shape=examples.shape[1:],
            accurate_layers=settings.accurate_layers,
            robust_layers=settings.robust_layers,
            alpha_scale=high - low,
            alpha_bias=low,
            accurate_scale=settings.accurate_scales[0],
            robust_scale=settings.robust_scales[0],
            version=settings.version,
            planes=settings.planes,
        )

    mix = initialised(make, conditions.seed).to(conditions.device).eval()
    assert isinstance(mix, AdaptiveMix)
    fast = with_fast_bases(mix, examples.to(conditions.device))
    # Acceleration froze and folded the mixing network too: put the trainable one in its place.
    network: MixingNetwork = mix.mixing_network
    network.bare = False
    fast.mixing_network = network
    return fast


register_recipe(
    "mixing-network",
    "the mixing network of an adaptive mix, on clean and on attacked images",
    MixingNetworkSettings,
    train,
)
