"""The mixes that RobustBench lists, built for any device, with the published checkpoints.

RobustBench's own class of Bai2023Improving needs a GPU to be built. Here each is an `AdaptiveMix`
of a BiT ResNet-152x2 (on images resized to 128x128) and a wide ResNet-70-16 (on 32x32), whose
feature maps have, channels x height x width,

| base | first level | second level | parameters, 100 classes |
| --- | --- | --- | --- |
| BiT ResNet-152x2 | `body.block1`, 512 x 32 x 32 | `body.block2`, 1024 x 16 x 16 | 232.6 million |
| wide ResNet-70-16 | `layer.0`, 256 x 32 x 32 | `layer.1`, 512 x 16 x 16 | 266.9 million |
| both, into the mixing network | 768 x 32 x 32 | 1536 x 16 x 16 | 67.8 million |

The mixing network is of version 4 with (512, 768, 1024) planes, whose outputs are 16 x 16, 8 x 8
and 4 x 4. A checkpoint has three files: the accurate base, the robust base, and the mixing network
as {"model": ..., "bn": ...}. Any of them can be the `weights:` of a submission: of
`bench.candidates.bit:bit_resnet`, `bench.candidates.architectures:wide_resnet` with depth 70, width
16 and activation silu, and `bench.candidates.adaptive_mix:AdaptiveMix`.

Bai2024MixedNUTS can be built anywhere; RobustBench's loader builds its bases, and they are put
into our class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from bench import robustbench
from bench.candidates.adaptive_mix import AdaptiveMix
from bench.candidates.mixed_nuts import MixedNuts
from bench.candidates.weights import load_weights
from bench.data import named_dataset

MIXED_NUTS = "Bai2024MixedNUTS"


@dataclass(frozen=True)
class PublishedMix:
    """The constants of a published adaptive mix; all have gamma_scale 2.

    Attributes:
        classes: K.
        alpha_scale: width of alpha's range.
        alpha_bias: its lower end.
        gamma_bias: mean of gamma.
        accurate_scale: factor on the accurate base's logits.
        robust_scale: factor on the robust base's logits.
    """

    classes: int
    alpha_scale: float
    alpha_bias: float
    gamma_bias: float
    accurate_scale: float
    robust_scale: float


PUBLISHED: dict[tuple[str, str], PublishedMix] = {
    ("cifar100", "Bai2023Improving_edm"): PublishedMix(100, 0.15, 0.84, 1.3, 2.0, 1.0),
    ("cifar100", "Bai2023Improving_trades"): PublishedMix(100, 0.10, 0.815, 1.0, 2.0, 1.0),
    ("cifar10", "Bai2023Improving_edm"): PublishedMix(10, 0.04, 0.96, 1.05, 1.2, 0.3),
}
"""By data set and RobustBench's id, all for Linf."""


def is_published(dataset: str, norm: str, model_id: str) -> bool:
    """Return whether a model of RobustBench's zoo is built here."""
    return norm == "Linf" and (dataset, model_id) in PUBLISHED


def build(dataset: str, model_id: str) -> AdaptiveMix:
    """Return a published adaptive mix with random weights, on the default device."""
    from bench.candidates.architectures import wide_resnet  # timm: slow, and few names need it
    from bench.candidates.bit import bit_resnet

    mix = PUBLISHED[dataset, model_id]
    data = named_dataset(dataset)
    # The robust bases with the TRADES loss were published with Swish, which is the same as SiLU.
    robust = wide_resnet(
        mix.classes,
        depth=70,
        width=16,
        activation="silu",
        mean=data.mean,
        standard_deviation=data.standard_deviation,
    )
    return AdaptiveMix(
        bit_resnet(mix.classes),
        robust,
        image_shape=(3, 32, 32),
        accurate_layers=("body.block1", "body.block2"),
        robust_layers=("layer.0", "layer.1"),
        alpha_scale=mix.alpha_scale,
        alpha_bias=mix.alpha_bias,
        gamma_scale=2.0,
        gamma_bias=mix.gamma_bias,
        accurate_scale=mix.accurate_scale,
        robust_scale=mix.robust_scale,
    )


def megabytes(dataset: str, model_id: str) -> float:
    """Return the size of a published mix's checkpoints in float32; takes no memory."""
    with torch.device("meta"):
        mix = build(dataset, model_id)
    return 4 * sum(int(tensor.numel()) for tensor in mix.state_dict().values()) / 1e6


def parts(mix: AdaptiveMix) -> tuple[nn.Module, nn.Module, nn.Module]:
    """Return what each of the three files of a checkpoint is loaded into, in order."""
    return (
        mix.accurate.get_submodule("base"),
        mix.robust.get_submodule("base"),
        mix.mixing_network,
    )


def load(dataset: str, norm: str, model_id: str, model_dir: Path) -> AdaptiveMix:
    """Load a published adaptive mix; weights that are missing are downloaded.

    Raises:
        Unavailable: a checkpoint cannot be downloaded.
        InputError: a checkpoint is damaged or of another network.
    """
    files = robustbench.fetch_checkpoints(model_id, dataset, norm, model_dir)
    mix = build(dataset, model_id)
    load_files(mix, files)
    mix.eval()
    return mix


def load_files(mix: AdaptiveMix, files: Sequence[Path]) -> None:
    """Load the three files of a checkpoint.

    Raises:
        InputError: a file is damaged or of another network.
    """
    for part, file in zip(parts(mix), files, strict=True):
        load_weights(part, file)


def as_mixed_nuts(theirs: nn.Module) -> MixedNuts:
    """Return RobustBench's MixedNUTS model as ours, sharing its bases."""
    constants = {
        name: float(_tensor(theirs, path))
        for name, path in {
            "alpha": "_alpha",
            "scale": "rob_map.scale",
            "power": "rob_map.power",
            "bias": "rob_map.clamp_bias",
            "surrogate_alpha": "_alpha_diffable",
        }.items()
    }
    return MixedNuts(
        theirs.get_submodule("std_model"), theirs.get_submodule("rob_model"), **constants
    )


def _tensor(module: nn.Module, path: str) -> Tensor:
    return module.get_parameter(path).detach()
