"""Presets: a recipe's settings for a data set, under a name."""

from __future__ import annotations

from dataclasses import dataclass

from bench.candidates.candidate import Paper
from bench.data import named_dataset
from bench.errors import InputError
from bench.training.mix_settings import FixedMixSettings, MixingNetworkSettings
from bench.training.settings import AdversarialSettings, OneCycleSettings, Settings
from bench.training.smoothing_presets import smoothing_presets

_RESIDUAL_NETWORK = "bench.candidates.architectures:residual_network"
_DIGITS_NETWORK = "bench.candidates.architectures:digits_network"


RESIDUAL_LEARNING = Paper(
    title="Deep Residual Learning for Image Recognition",
    authors="Kaiming He, Xiangyu Zhang, Shaoqing Ren, Jian Sun",
    link="https://arxiv.org/abs/1512.03385",
    venue="CVPR 2016",
)
PGD_TRAINING = Paper(
    title="Towards Deep Learning Models Resistant to Adversarial Attacks",
    authors="Aleksander Madry, Aleksandar Makelov, Ludwig Schmidt, Dimitris Tsipras, Adrian Vladu",
    link="https://arxiv.org/abs/1706.06083",
    venue="ICLR 2018",
)
NOISE_FGSM = Paper(
    title="Make Some Noise: Reliable and Efficient Single-Step Adversarial Training",
    authors="Pau de Jorge, Adel Bibi, Riccardo Volpi, Amartya Sanyal, "
    "Philip H. S. Torr, Gregory Rogez, Puneet K. Dokania",
    link="https://arxiv.org/abs/2202.01181",
    venue="NeurIPS 2022",
)
ADAPTIVE_SMOOTHING = Paper(
    title="Improving the Accuracy-Robustness Trade-Off of Classifiers via Adaptive Smoothing",
    authors="Yatong Bai, Brendon G. Anderson, Aerin Kim, Somayeh Sojoudi",
    link="https://arxiv.org/abs/2301.12554",
    venue="SIMODS 2024",
)


@dataclass(frozen=True)
class Preset:
    """Settings of a recipe for one data set."""

    recipe: str
    dataset: str
    settings: Settings
    paper: Paper


def _cifar_standard(num_classes: int, **normalization: list[float]) -> Settings:
    return OneCycleSettings(
        architecture=_RESIDUAL_NETWORK,
        architecture_args={
            "num_classes": num_classes,
            "widths": [96, 192, 384],
            "blocks": [1, 1, 1],
            "stem_channels": 48,
            "first_stride": 2,
            "activation": "relu",
            **normalization,
        },
        epochs=12,
        batch_size=128,
        peak_learning_rate=0.2,
        label_smoothing=0.1,
        crop_padding=4,
        flip=True,
        held_out=500,
        measure_every=2,
    )


def _cifar_robust(num_classes: int, **normalization: list[float]) -> Settings:
    return AdversarialSettings(
        architecture=_RESIDUAL_NETWORK,
        architecture_args={
            "num_classes": num_classes,
            "widths": [64, 128, 256],
            "blocks": [1, 1, 1],
            "stem_channels": 64,
            "stem_stride": 2,
            "activation": "silu",
            **normalization,
        },
        epochs=18,
        batch_size=128,
        peak_learning_rate=0.2,
        label_smoothing=0.1,
        crop_padding=4,
        flip=True,
        held_out=500,
        measure_every=2,
        eps=named_dataset("cifar10").radii["Linf"],
        attack_steps=1,
        attack_step_size=1.0,
        attack_noise=2.0,
        attack_projects=False,
    )


def _cifar_adaptive_mix(dataset: str, product: float) -> Settings:
    return MixingNetworkSettings(
        suite=f"{dataset}-linf",
        accurate=f"{dataset}-standard",
        robust=f"{dataset}-robust",
        # 16x16 and 8x8 pixels in both bases.
        accurate_layers=("stages.0", "stages.1"),
        robust_layers=("stages.0", "stages.1"),
        planes=(64, 96, 128),
        batch_size=16,
        images_per_epoch=1280,
        peak_learning_rate=1e-3,
        crop_padding=4,
        flip=True,
        product=product,
        robust_scales=(1.0, 1.5, 2.0),
        gamma_biases=(0.0, 1.0, 1.6, 2.5, 4.0),
        attack_steps=10,
        attack_targets=2,
        search_steps=10,
        search_targets=2,
    )


def _cifar_mix(dataset: str) -> Settings:
    return FixedMixSettings(
        suite=f"{dataset}-linf",
        accurate=f"{dataset}-standard",
        robust=f"{dataset}-robust",
        robust_scales=(1.0, 1.5, 2.0),
        search_steps=10,
        search_targets=2,
    )


_CIFAR10 = {
    "mean": list(named_dataset("cifar10").mean),
    "standard_deviation": list(named_dataset("cifar10").standard_deviation),
}

_PRESETS: dict[str, Preset] = {
    "digits-standard": Preset(
        "standard",
        "digits",
        OneCycleSettings(
            architecture=_DIGITS_NETWORK,
            epochs=20,
            batch_size=64,
            peak_learning_rate=0.1,
            label_smoothing=0.1,
            crop_padding=1,
            average_decay=0.99,
            precision="float32",
        ),
        RESIDUAL_LEARNING,
    ),
    "digits-robust": Preset(
        "adversarial",
        "digits",
        AdversarialSettings(
            architecture=_DIGITS_NETWORK,
            epochs=40,
            batch_size=64,
            peak_learning_rate=0.1,
            weight_decay=1e-4,
            average_decay=0.99,
            precision="float32",
            eps=named_dataset("digits").radii["Linf"],
            attack_steps=5,
            attack_step_size=0.4,
        ),
        PGD_TRAINING,
    ),
    "cifar100-standard": Preset("standard", "cifar100", _cifar_standard(100), RESIDUAL_LEARNING),
    "cifar100-robust": Preset("adversarial", "cifar100", _cifar_robust(100), NOISE_FGSM),
    "cifar10-standard": Preset(
        "standard", "cifar10", _cifar_standard(10, **_CIFAR10), RESIDUAL_LEARNING
    ),
    "cifar10-robust": Preset("adversarial", "cifar10", _cifar_robust(10, **_CIFAR10), NOISE_FGSM),
    "digits-mix": Preset(
        "fixed-mix",
        "digits",
        FixedMixSettings(
            suite="digits-linf",
            accurate="digits-standard",
            robust="digits-robust",
            held_out=400,
        ),
        ADAPTIVE_SMOOTHING,
    ),
    "cifar100-mix": Preset("fixed-mix", "cifar100", _cifar_mix("cifar100"), ADAPTIVE_SMOOTHING),
    "cifar10-mix": Preset("fixed-mix", "cifar10", _cifar_mix("cifar10"), ADAPTIVE_SMOOTHING),
    "digits-adaptive-mix": Preset(
        "mixing-network",
        "digits",
        MixingNetworkSettings(
            suite="digits-linf",
            accurate="digits-standard",
            robust="digits-robust",
            accurate_layers=("stages.0", "stages.1"),
            robust_layers=("stages.0", "stages.1"),
            planes=(16, 24),
            held_out=400,
            batch_size=16,
            images_per_epoch=512,
            peak_learning_rate=2e-3,
            crop_padding=1,
            attack_steps=15,
            attack_targets=2,
        ),
        ADAPTIVE_SMOOTHING,
    ),
    "cifar100-adaptive-mix": Preset(
        "mixing-network", "cifar100", _cifar_adaptive_mix("cifar100", 0.2), ADAPTIVE_SMOOTHING
    ),
    "cifar10-adaptive-mix": Preset(
        "mixing-network", "cifar10", _cifar_adaptive_mix("cifar10", 0.3), ADAPTIVE_SMOOTHING
    ),
    **{
        name: Preset(recipe, dataset, settings, paper)
        for name, recipe, dataset, settings, paper in smoothing_presets()
    },
}


def presets() -> dict[str, Preset]:
    """Every preset by its name."""
    return dict(_PRESETS)


def preset_for(recipe: str, dataset: str) -> str:
    """Name of the preset of a recipe for a data set; the first of several, its default.

    Raises:
        InputError: If there is none.
    """
    for name, preset in _PRESETS.items():
        if (preset.recipe, preset.dataset) == (recipe, dataset):
            return name
    fitting = dict.fromkeys(each.dataset for each in _PRESETS.values() if each.recipe == recipe)
    if not fitting:
        known = ", ".join(dict.fromkeys(each.recipe for each in _PRESETS.values()))
        raise InputError(f"expected a recipe of {known}; got {recipe!r}")
    raise InputError(
        f"expected a data set of {', '.join(fitting)} for the recipe {recipe}; got {dataset!r}"
    )
