"""Training of a mixing network, on clean images and on images attacked on the mix as it is.

Y. Bai et al., "Improving the Accuracy-Robustness Trade-Off of Classifiers via Adaptive Smoothing",
SIMODS 2024, arXiv 2301.12554, section 4. The bases are frozen. In training, and in its attacks,
alpha is the sigmoid of gamma; its range, and the scales, are chosen afterwards.
"""

from __future__ import annotations

import time
from itertools import combinations, product

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.candidates.adaptive_mix import AdaptiveMix
from bench.candidates.mix import MixAnswer
from bench.candidates.mixing_network import MixingNetwork
from bench.training.initialization import initialised
from bench.training.loop import fit, split, training_images
from bench.training.mix_attack import attacked_copies
from bench.training.mix_bases import LoadedBases, with_fast_bases
from bench.training.mix_search import Numbers, choose
from bench.training.mix_settings import MixingNetworkSettings
from bench.training.optimization import adamw
from bench.training.settings import Settings
from bench.training.submission_folder import compact
from bench.training.trained import Conditions, Trained, TrainingData

NORM_MOMENTUM = 0.01
"""Of the batch norm over gamma, once it has seen a hundred batches."""

NEUTRAL: Numbers = {
    "alpha_scale": 1.0,
    "alpha_bias": 0.0,
    "gamma_scale": 1.0,
    "gamma_bias": 0.0,
    "accurate_scale": 1.0,
    "robust_scale": 1.0,
}


def train(settings: Settings, data: TrainingData, conditions: Conditions) -> Trained:
    """Train a mixing network, then choose the numbers of its mix on held-out training images.

    Args:
        settings: See ``MixingNetworkSettings``.
        data: Training images and labels.
        conditions: Seed, checkpoint and device. The choice is made anew if it was interrupted.

    Raises:
        InputError: If the settings do not fit the data, the bases or the checkpoint.
        TypeError: If the settings are not ``MixingNetworkSettings``.
    """
    if not isinstance(settings, MixingNetworkSettings):
        raise TypeError(f"expected MixingNetworkSettings, got {type(settings).__name__}")
    training, held_out = split(len(data.labels), settings.held_out, conditions.seed)
    bases = LoadedBases(settings, data.name)
    mix = _make_mix(settings, bases, data, conditions)

    def batch_loss(
        network: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator, epoch: int
    ) -> Tensor:
        # Attacked in eval mode, where no image depends on the others in its batch.
        network.eval()
        attacked = attacked_copies(mix, images, labels, bases.threat_model, settings, generator)
        network.train()
        drawn = torch.randint(len(training), (len(attacked),), generator=generator)
        clean = training_images(data, training[drawn], settings, generator)
        clean_labels = data.labels[training[drawn]].to(labels.device)
        warm_up_norm(mix.mixing_network.bn)
        answer = mix.answer(torch.cat((attacked, clean.to(attacked.device))))
        attacked_labels = labels.repeat(len(attacked) // len(labels))
        return loss_of(
            answer, torch.cat((attacked_labels, clean_labels)), len(attacked), settings
        ).mean()

    fitted = fit(
        mix.mixing_network,
        data,
        settings,
        adamw(mix.mixing_network, settings),
        batch_loss,
        conditions,
        bases=bases.sha256,
    )
    began = time.monotonic()
    # As the weights file will have them, so that the choice is made for the mix that is shipped.
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
        conditions.seed,
        conditions.progress,
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
        seconds=fitted.seconds + time.monotonic() - began,
        started=fitted.started,
        bases=bases.names,
        record={"bases_sha256": bases.sha256} | choice.record(len(held_out)),
    )


def loss_of(
    answer: MixAnswer, labels: Tensor, attacked: int, settings: MixingNetworkSettings
) -> Tensor:
    """c_ce CE + c_bce BCE(gamma, t) + c_prod CE BCE of each image, t = 1 for attacked ones, else 0.

    Args:
        answer: Of the mix on N images.
        labels: (N,) int64.
        attacked: The first so many images are attacked ones, the others are clean.
        settings: Give the weights of the terms, and of clean images.

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
    return loss * torch.where(is_attacked == 1, 1.0, settings.clean_weight)


def warm_up_norm(norm: nn.BatchNorm1d) -> None:
    """Set the momentum for the next batch: a plain average of the first hundred batches.

    With the published momentum from the start, a short training would end with running statistics
    that still remember their initial values, 0 and 1.
    """
    assert norm.num_batches_tracked is not None
    norm.momentum = max(NORM_MOMENTUM, 1 / (int(norm.num_batches_tracked) + 1))


def number_grid(settings: MixingNetworkSettings) -> list[Numbers]:
    """Every combination of alpha's range, gamma's scale and bias, and the bases' scales."""
    ends = [
        max(round(1 - settings.alpha_step * step, 6), 0.0)
        for step in range(int(1 / settings.alpha_step) + 1)
    ]
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


def configured(mix: AdaptiveMix, numbers: Numbers) -> AdaptiveMix:
    """The mix itself, changed to these numbers, as they count in evaluation."""
    network = mix.mixing_network
    network.bare = False
    network.alpha_scale, network.alpha_bias = numbers["alpha_scale"], numbers["alpha_bias"]
    network.gamma_scale, network.gamma_bias = numbers["gamma_scale"], numbers["gamma_bias"]
    mix.accurate_scale, mix.robust_scale = numbers["accurate_scale"], numbers["robust_scale"]
    return mix


def _make_mix(
    settings: MixingNetworkSettings, bases: LoadedBases, data: TrainingData, conditions: Conditions
) -> AdaptiveMix:
    """A mix of fast copies of the bases and a fresh mixing network, as it is trained."""
    examples = data.images[torch.arange(min(len(data.labels), 8))]

    def make() -> AdaptiveMix:
        return AdaptiveMix(
            bases.accurate,
            bases.robust,
            image_shape=examples.shape[1:],
            accurate_layers=settings.accurate_layers,
            robust_layers=settings.robust_layers,
            alpha_scale=1.0,
            alpha_bias=0.0,
            accurate_scale=settings.accurate_scales[0],
            robust_scale=settings.robust_scales[0],
            version=settings.version,
            planes=settings.planes,
        )

    mix = initialised(make, conditions.seed).to(conditions.device).eval()
    assert isinstance(mix, AdaptiveMix)
    fast = with_fast_bases(mix, examples.to(conditions.device))
    # Acceleration froze and folded the mixing network too: the one that is trained takes its place.
    network: MixingNetwork = mix.mixing_network
    network.bare = True
    fast.mixing_network = network
    return fast
