"""Network architectures that a submission can name.

Every function here returns a freshly initialised module that maps images (N, C, H, W) in [0, 1] to
logits (N, K): the normalisation by mean and standard deviation is part of the module, so that a
threat model in pixel units means the same for each of them. Stages are submodules of their own
(``stages.0``, ``stages.1``, ... or ``layer.0``, ...): a mixing network reads feature maps there.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from bench.data import named_dataset

with warnings.catch_warnings():
    # About torch's own interfaces: nothing that who names a candidate could change.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"timm\.|torch\.")
    warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"timm\.|torch\.")
    from timm.layers.activations import GELU
    from timm.models.resnet import BasicBlock, downsample_conv

# Each takes `inplace`, as timm's blocks ask for; torch's own GELU does not.
ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "silu": nn.SiLU,
    "gelu": GELU,
}

_CIFAR100 = named_dataset("cifar100")


class Normalization(nn.Module):
    """Subtracts a mean and divides by a standard deviation, channel by channel.

    The two are constants of the architecture, not weights: they are not part of the state dict.
    """

    mean: Tensor
    standard_deviation: Tensor

    def __init__(self, mean: Sequence[float], standard_deviation: Sequence[float]) -> None:
        super().__init__()
        if len(mean) != len(standard_deviation):
            raise ValueError(
                "expected as many means as standard deviations, "
                f"got {len(mean)} and {len(standard_deviation)}"
            )
        if min(standard_deviation) <= 0:
            raise ValueError(f"expected standard deviations > 0, got {list(standard_deviation)}")
        for name, values in (("mean", mean), ("standard_deviation", standard_deviation)):
            tensor = torch.tensor(list(values), dtype=torch.float32).view(1, -1, 1, 1)
            self.register_buffer(name, tensor, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Normalise images (N, C, H, W) in [0, 1]."""
        return (images - self.mean) / self.standard_deviation


class ResidualNetwork(nn.Module):
    """Normalisation, a stem, stages of residual blocks, mean pooling and one linear layer.

    K. He et al., "Deep Residual Learning for Image Recognition", 2016.
    """

    def __init__(
        self,
        normalization: Normalization,
        stem: nn.Module,
        stages: Sequence[nn.Module],
        features: int,
        num_classes: int,
    ) -> None:
        super().__init__()
        self.normalization = normalization
        self.stem = stem
        self.stages = nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(features, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, K) of images (N, C, H, W) in [0, 1]."""
        maps = self.stages(self.stem(self.normalization(images)))
        return cast(Tensor, self.classifier(self.pool(maps).flatten(1)))


def residual_network(
    num_classes: int,
    widths: Sequence[int] = (64, 128, 256),
    blocks: Sequence[int] = (1, 1, 1),
    stem_channels: int = 64,
    stem_stride: int = 1,
    first_stride: int = 1,
    activation: str = "relu",
    in_channels: int = 3,
    mean: Sequence[float] = _CIFAR100.mean,
    standard_deviation: Sequence[float] = _CIFAR100.standard_deviation,
) -> ResidualNetwork:
    """Return a residual network of basic blocks (two 3x3 convolutions), one stage per width.

    Args:
        num_classes: K, the number of logits.
        widths: Output channels of each stage.
        blocks: Number of residual blocks of each stage.
        stem_channels: Output channels of the 3x3 convolution that comes first.
        stem_stride: Stride of that convolution.
        first_stride: Stride of the first stage; every later stage halves the resolution.
        activation: One of ``ACTIVATIONS``.
        in_channels: Channels of the images.
        mean: Per-channel mean that is subtracted from the images.
        standard_deviation: Per-channel standard deviation that they are divided by.

    Raises:
        ValueError: If the activation is unknown, or if the lengths of the arguments do not agree.
    """
    act_layer = _activation(activation)
    if len(widths) != len(blocks) or not widths:
        raise ValueError(
            f"expected one number of blocks for each width, got {len(blocks)} for {len(widths)}"
        )
    if len(mean) != in_channels:
        raise ValueError(f"expected a mean for each of {in_channels} channels, got {len(mean)}")
    stem = nn.Sequential(
        nn.Conv2d(in_channels, stem_channels, 3, stride=stem_stride, padding=1, bias=False),
        nn.BatchNorm2d(stem_channels),
        act_layer(),
    )
    stages: list[nn.Module] = []
    channels = stem_channels
    for position, (width, count) in enumerate(zip(widths, blocks, strict=True)):
        stride = first_stride if position == 0 else 2
        stages.append(_stage(channels, width, count, stride, act_layer))
        channels = width
    network = ResidualNetwork(
        Normalization(mean, standard_deviation), stem, stages, channels, num_classes
    )
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return network


def _stage(
    in_channels: int, width: int, blocks: int, stride: int, act_layer: type[nn.Module]
) -> nn.Sequential:
    modules: list[nn.Module] = []
    for position in range(blocks):
        changes_shape = position == 0 and (stride != 1 or in_channels != width)
        shortcut = downsample_conv(in_channels, width, 1, stride=stride) if changes_shape else None
        modules.append(
            BasicBlock(
                in_channels if position == 0 else width,
                width,
                stride=stride if position == 0 else 1,
                downsample=shortcut,
                act_layer=act_layer,
            )
        )
    return nn.Sequential(*modules)


def digits_network(
    num_classes: int = 10,
    widths: Sequence[int] = (16, 32),
    activation: str = "silu",
    stem_stride: int = 2,
) -> ResidualNetwork:
    """Return a small residual network for the 8x8 grey images of scikit-learn's digits.

    Arguments as in ``residual_network``.
    """
    digits = named_dataset("digits")
    return residual_network(
        num_classes,
        widths=widths,
        blocks=[1] * len(widths),
        stem_channels=widths[0],
        stem_stride=stem_stride,
        activation=activation,
        in_channels=1,
        mean=digits.mean,
        standard_deviation=digits.standard_deviation,
    )


def wide_resnet(
    num_classes: int,
    depth: int = 28,
    width: int = 10,
    activation: str = "relu",
    mean: Sequence[float] = _CIFAR100.mean,
    standard_deviation: Sequence[float] = _CIFAR100.standard_deviation,
) -> nn.Module:
    """Return RobustBench's ``DMWideResNet``, for 32x32 images.

    S. Zagoruyko and N. Komodakis, "Wide Residual Networks", 2016; in the form of S. Gowal et al.,
    "Uncovering the Limits of Adversarial Training against Norm-Bounded Adversarial Examples", 2020.

    Args:
        num_classes: K, the number of logits.
        depth: Number of layers, 6 n + 4.
        width: Factor on the 16, 32 and 64 channels of the stages.
        activation: One of ``ACTIVATIONS``.
        mean: Per-channel mean that is subtracted from the images.
        standard_deviation: Per-channel standard deviation that they are divided by.

    Raises:
        ValueError: If the activation is unknown, or depth is not of the form 6 n + 4.
    """
    if depth < 10 or (depth - 4) % 6:
        raise ValueError(f"expected a depth of the form 6 n + 4 (10, 16, 22, 28, ...), got {depth}")
    act_layer = _activation(activation)
    from robustbench.model_zoo.architectures.dm_wide_resnet import DMWideResNet

    network: nn.Module = DMWideResNet(
        num_classes=num_classes,
        depth=depth,
        width=width,
        activation_fn=act_layer,
        mean=tuple(mean),
        std=tuple(standard_deviation),
    )
    return network


def imagenet_resnet50(num_classes: int = 1000) -> nn.Module:
    """Return torchvision's ResNet-50, freshly initialised, behind ImageNet's normalisation."""
    from torchvision.models import resnet50

    imagenet = named_dataset("imagenet")
    normalization = Normalization(imagenet.mean, imagenet.standard_deviation)
    return nn.Sequential(normalization, resnet50(num_classes=num_classes))


def pyautoattack_resnet18() -> nn.Module:
    """Return the CIFAR-10 ResNet-18 of pyautoattack's example, without normalisation."""
    from pyautoattack.examples.resnet import ResNet18

    network: nn.Module = ResNet18()
    return network


def _activation(name: str) -> type[nn.Module]:
    if name not in ACTIVATIONS:
        raise ValueError(f"expected an activation among {', '.join(ACTIVATIONS)}, got {name!r}")
    return ACTIVATIONS[name]
