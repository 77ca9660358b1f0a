"""Presets of the recipes for smoothed classifiers.

On CIFAR-10 all but MACER have the schedule under which the SmoothMix paper (arXiv 2111.09277)
compares them: 150 epochs, the learning rate divided by 10 after 50 and 100. Its batches of 256 are
256 noisy copies, hence 256 / m images a step. Settings that the papers change with sigma stand here
for sigma = 0.5: at 0.25 consistency has lambda = 20 and MACER lambda = 12; at 1 MACER has lambda =
12 and defers the radius term for 200 epochs.
"""

from __future__ import annotations

from typing import Any

from bench.candidates.candidate import Paper
from bench.training.smoothing_settings import (
    ConsistencySettings,
    GaussianSettings,
    MacerSettings,
    SmoothAdvSettings,
    SmoothingSettings,
    SmoothMixSettings,
    StabilitySettings,
)

_ARCHITECTURES = "bench.candidates.architectures"

# The normalisation of Cohen et al.'s networks, whose weights are about: not the pixels' true one.
_CIFAR10_NORMALIZATION = {
    "mean": [0.4914, 0.4822, 0.4465],
    "standard_deviation": [0.2023, 0.1994, 0.2010],
}

_KINDS: dict[str, tuple[type[SmoothingSettings], Paper]] = {
    "gaussian": (
        GaussianSettings,
        Paper(
            title="Certified Adversarial Robustness via Randomized Smoothing",
            authors="Jeremy Cohen, Elan Rosenfeld, Zico Kolter",
            link="https://arxiv.org/abs/1902.02918",
            venue="ICML 2019",
        ),
    ),
    "smoothmix": (
        SmoothMixSettings,
        Paper(
            title="SmoothMix: Training Confidence-calibrated Smoothed Classifiers for Certified "
            "Robustness",
            authors="Jongheon Jeong, Sejun Park, Minkyu Kim, Heung-Chang Lee, Doguk Kim, "
            "Jinwoo Shin",
            link="https://arxiv.org/abs/2111.09277",
            venue="NeurIPS 2021",
        ),
    ),
    "smoothadv": (
        SmoothAdvSettings,
        Paper(
            title="Provably Robust Deep Learning via Adversarially Trained Smoothed Classifiers",
            authors="Hadi Salman, Jerry Li, Ilya Razenshteyn, Pengchuan Zhang, Huan Zhang, "
            "Sebastien Bubeck, Greg Yang",
            link="https://arxiv.org/abs/1906.04584",
            venue="NeurIPS 2019",
        ),
    ),
    "consistency": (
        ConsistencySettings,
        Paper(
            title="Consistency Regularization for Certified Robustness of Smoothed Classifiers",
            authors="Jongheon Jeong, Jinwoo Shin",
            link="https://arxiv.org/abs/2006.04062",
            venue="NeurIPS 2020",
        ),
    ),
    "stability": (
        StabilitySettings,
        Paper(
            title="Certified Adversarial Robustness with Additive Noise",
            authors="Bai Li, Changyou Chen, Wenlin Wang, Lawrence Carin",
            link="https://arxiv.org/abs/1809.03113",
            venue="NeurIPS 2019",
        ),
    ),
    "macer": (
        MacerSettings,
        Paper(
            title="MACER: Attack-free and Scalable Robust Training via Maximizing Certified Radius",
            authors="Runtian Zhai, Chen Dan, Di He, Huan Zhang, Boqing Gong, "
            "Pradeep Ravikumar, Cho-Jui Hsieh, Liwei Wang",
            link="https://arxiv.org/abs/2001.02378",
            venue="ICLR 2020",
        ),
    ),
}


def smoothing_presets() -> list[tuple[str, str, str, SmoothingSettings, Paper]]:
    """Name, recipe, data set, settings and paper of each; a data set's default comes first."""
    found = []
    for recipe, (kind, paper) in _KINDS.items():
        for suffix, dataset, settings in (
            ("", "digits", _digits(recipe)),
            ("", "cifar10", _cifar10(blocks=18)),
            ("-resnet20", "cifar10", _cifar10(blocks=3)),
            ("-short", "cifar10", _cifar10_short(recipe)),
            ("", "imagenet", _imagenet(recipe)),
        ):
            name = f"{dataset}-{recipe}{suffix}"
            found.append((name, recipe, dataset, kind(**settings), paper))
    return found


def _digits(recipe: str) -> dict[str, Any]:
    """The same for all but the recipe's own term: 30 epochs of 1,437 images of 8x8 pixels."""
    own: dict[str, dict[str, Any]] = {
        "smoothadv": {"eps": 0.5, "attack_steps": 4, "warm_up_epochs": 5},
        "smoothmix": {"warm_up_epochs": 5},
        "macer": {"noise_draws": 8, "weight_decay": 1e-4},
    }
    return {
        "architecture": f"{_ARCHITECTURES}:digits_network",
        "epochs": 30,
        "batch_size": 64,
        "peak_learning_rate": 0.1,
        "decay_every": 10,
        "sigma": 0.25,
        **own.get(recipe, {}),
    }


def _cifar10(blocks: int) -> dict[str, Any]:
    """ResNet-20 with 3 blocks a stage, ResNet-110 with 18."""
    return {
        "architecture": f"{_ARCHITECTURES}:residual_network",
        "architecture_args": {
            "num_classes": 10,
            "widths": [16, 32, 64],
            "blocks": [blocks] * 3,
            "stem_channels": 16,
            **_CIFAR10_NORMALIZATION,
        },
        "crop_padding": 4,
        "flip": True,
        "sigma": 0.5,
    }


def _cifar10_short(recipe: str) -> dict[str, Any]:
    """For two CPU cores: ResNet-20 on 16x16 pixels, a tenth of the epochs, otherwise the same.

    A warm-up of ten epochs becomes one at half weight, the mean of those ten.
    """
    own: dict[str, dict[str, Any]] = {
        "smoothadv": {"warm_up_epochs": 2},
        "smoothmix": {"warm_up_epochs": 2},
        "macer": {"epochs": 44, "decay_every": 20},
    }
    settings = _cifar10(blocks=3)
    return settings | {
        "architecture_args": settings["architecture_args"] | {"stem_stride": 2},
        "epochs": 15,
        "decay_every": 5,
        **own.get(recipe, {}),
    }


def _imagenet(recipe: str) -> dict[str, Any]:
    """ResNet-50, 90 epochs (MACER 120), the learning rate divided by 10 after every 30."""
    own: dict[str, dict[str, Any]] = {
        "smoothmix": {"noise_draws": 1, "batch_size": 256, "attack_steps": 1, "mix_weight": 1.0},
        "smoothadv": {"noise_draws": 1, "batch_size": 256, "attack_steps": 1},
        "consistency": {"consistency_weight": 5.0, "entropy_weight": 0.1},
        "macer": {"noise_draws": 2, "batch_size": 128, "radius_weight": 3.0, "epochs": 120},
    }
    return {
        "architecture": f"{_ARCHITECTURES}:imagenet_resnet50",
        "epochs": 90,
        "decay_every": 30,
        "peak_learning_rate": 0.1,
        "weight_decay": 1e-4,
        "flip": True,
        "sigma": 0.5,
        **own.get(recipe, {}),
    }
