"""The mixing network: from feature maps of both bases to the weight of the robust one.

Y. Bai et al., "Improving the Accuracy-Robustness Trade-Off of Classifiers via Adaptive Smoothing",
SIMODS 2024, arXiv 2301.12554, section 4:

    gamma(x) = gamma_scale * BN(trunk(features)) + gamma_bias
    alpha(x) = alpha_scale * sigmoid(gamma(x)) + alpha_bias
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.candidates.mix import fraction, positive
from bench.errors import InputError

Maps = tuple[Tensor, ...]
"""The feature maps of one base, first and second level: (N, C_1, H, W), (N, C_2, H/2, W/2)."""

PUBLISHED_PLANES = (512, 768, 1024)
"""The planes of the published models, whose bases have 512 and 256 channels at the first level."""

TRAINING_GAMMA_SCALE = 2.0
TRAINING_GAMMA_BIAS = 0.4
CLAMP_STANDARD_DEVIATIONS = 0.6
"""In training the trunk's output stays this near to the batch's mean: outliers would make the batch
norm squeeze everything else together."""


@dataclass(frozen=True)
class TrunkShape:
    """What decides the shapes of a trunk's weights.

    Attributes:
        version: 3, where the second level is added to the first block's output as it is and hence
            has as many channels, or 4, where a 1x1 convolution makes them agree.
        channels: of both bases' maps together, at the first and at the second level.
        planes: output channels of the blocks.
    """

    version: int
    channels: tuple[int, int]
    planes: tuple[int, ...]

    def __str__(self) -> str:
        return f"version {self.version}, channels {self.channels}, planes {self.planes}"

    def check(self) -> None:
        """Refuse what cannot be built.

        Raises:
            InputError: naming the field.
        """
        if self.version not in (3, 4):
            raise InputError(f"version: expected 3 or 4, got {self.version}")
        if not self.planes or min(self.planes) < 1:
            raise InputError(f"planes: expected numbers of channels, got {list(self.planes)}")
        if self.version == 3 and self.channels[1] != self.planes[0]:
            raise InputError(
                f"planes: expected {self.channels[1]} as the first one, the channels of the bases' "
                f"second maps, which version 3 adds as they are; got {self.planes[0]}. Version 4 "
                "takes any."
            )


class PreActivationBlock(nn.Module):
    """Batch norm, ReLU, 3x3 convolution, twice, around a shortcut.

    K. He et al., "Identity Mappings in Deep Residual Networks", 2016.
    """

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.shortcut = nn.Sequential()
        if stride != 1 or in_channels != channels:
            self.shortcut.append(nn.Conv2d(in_channels, channels, 1, stride=stride, bias=False))

    def forward(self, maps: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C', H/stride, W/stride)."""
        active = functional.relu(self.bn1(maps))
        residual = self.conv2(functional.relu(self.bn2(self.conv1(active))))
        # The shortcut starts behind the first activation, also where it is the identity.
        return cast(Tensor, residual + self.shortcut(active))


class Trunk(nn.Module):
    """Stages of two blocks each, the first block of stride 2; mean pooling; one linear output."""

    def __init__(self, shape: TrunkShape) -> None:
        """Build the module, with torch's own initialisation.

        Raises:
            InputError: a shape that cannot be.
        """
        super().__init__()
        shape.check()
        stages = []
        channels = shape.channels[0]
        for planes in shape.planes:
            stages.append(
                nn.Sequential(
                    PreActivationBlock(channels, planes, stride=2),
                    PreActivationBlock(planes, planes, stride=1),
                )
            )
            channels = planes
        self.layers = nn.ModuleList(stages)
        self.linear = nn.Linear(channels, 1, bias=False)
        self.conv1x1: nn.Module = nn.Identity()
        if shape.version == 4:
            self.conv1x1 = nn.Conv2d(shape.channels[1], shape.planes[0], 1, bias=False)

    def forward(self, accurate: Maps, robust: Maps) -> Tensor:
        """Map the bases' feature maps to one number an image, (N, 1)."""
        first = torch.cat((accurate[0], robust[0]), dim=1)
        second = torch.cat((accurate[1], robust[1]), dim=1)
        maps = self.layers[0](first) + self.conv1x1(second)
        for stage in self.layers[1:]:
            maps = stage(maps)
        return cast(Tensor, self.linear(maps.mean(dim=(2, 3))))


class MixingNetwork(nn.Module):
    """Trunk, batch norm over its one output, and the scales that make a weight of it.

    The submodules are named as in the published checkpoints, {"model": ..., "bn": ...}. In training
    mode the trunk's output is clamped before the batch norm. With `bare` the weight is the sigmoid
    itself and gamma has the scale and bias of training: so is the mix trained, and attacked during
    training. The published scale and bias of alpha narrow its range afterwards.

    Attributes:
        bare: None: as `training` says.
    """

    def __init__(
        self,
        shape: TrunkShape,
        alpha_scale: float,
        alpha_bias: float,
        gamma_scale: float = TRAINING_GAMMA_SCALE,
        gamma_bias: float = TRAINING_GAMMA_BIAS,
    ) -> None:
        """Build the mix.

        Args:
            shape: of the trunk.
            alpha_scale: width of the range of alpha, in (0, 1].
            alpha_bias: its lower end; it and the upper end are in [0, 1].
            gamma_scale: > 0.
            gamma_bias: any number.

        Raises:
            InputError: a number outside its range, or a shape that cannot be.
        """
        super().__init__()
        self.alpha_scale = positive("alpha_scale", alpha_scale)
        self.alpha_bias = fraction("alpha_bias", alpha_bias)
        # A range that ends at 1 may exceed it by a rounding, as 0.04 + 0.96 in another order.
        fraction("alpha_bias + alpha_scale", round(alpha_bias + alpha_scale, 12))
        self.gamma_scale = positive("gamma_scale", gamma_scale)
        self.gamma_bias = float(gamma_bias)
        self.shape = shape
        self.model = Trunk(shape)
        self.bn = nn.BatchNorm1d(1, affine=False, momentum=0.01)
        self.bare: bool | None = None

    @property
    def is_bare(self) -> bool:
        """Whether the weight is the sigmoid itself."""
        return self.training if self.bare is None else self.bare

    @property
    def alpha_range(self) -> tuple[float, float]:
        """The ends that alpha lies between."""
        scale, bias = self._scale_and_bias()
        return bias, min(scale + bias, 1.0)

    def forward(self, accurate: Maps, robust: Maps) -> Tensor:
        """Return gamma (N,) from the bases' feature maps."""
        output: Tensor = self.model(accurate, robust)
        if self.training:
            output = clamp_outliers(output)
        precise = torch.promote_types(output.dtype, torch.float32)
        normal = self.bn(output.to(precise)).squeeze(1)
        if self.is_bare:
            return cast(Tensor, TRAINING_GAMMA_SCALE * normal + TRAINING_GAMMA_BIAS)
        return cast(Tensor, self.gamma_scale * normal + self.gamma_bias)

    def alpha(self, gamma: Tensor) -> Tensor:
        """Return alpha (N,) from gamma (N,)."""
        scale, bias = self._scale_and_bias()
        return scale * torch.sigmoid(gamma) + bias

    def log_weights(self, gamma: Tensor) -> tuple[Tensor, Tensor]:
        """Return log(1 - alpha) and log(alpha), (N,) each, finite where alpha's range allows it."""
        scale, bias = self._scale_and_bias()
        rest = max(round(1 - scale - bias, 12), 0.0)
        return (
            _log_of_sum(functional.logsigmoid(-gamma), scale, rest),
            _log_of_sum(functional.logsigmoid(gamma), scale, bias),
        )

    def check_checkpoint(self, state: Mapping[str, Tensor]) -> None:
        """Refuse the checkpoint of a mixing network of another size.

        Raises:
            InputError: it is one; both sizes are named.
        """
        came = trunk_shape_of(state)
        if came is not None and came != self.shape:
            raise InputError(
                f"version, planes: expected a mixing network of {self.shape}, got the weights of "
                f"one of {came}"
            )

    def _scale_and_bias(self) -> tuple[float, float]:
        return (1.0, 0.0) if self.is_bare else (self.alpha_scale, self.alpha_bias)


def clamp_outliers(output: Tensor) -> Tensor:
    """Keep the trunk's output (N, 1) within 0.6 standard deviations of the batch's mean.

    Mean and deviation count as constants of the gradient. One image alone is returned as it is.
    """
    if len(output) < 2:
        return output
    mean = output.detach().mean()
    reach = CLAMP_STANDARD_DEVIATIONS * output.detach().std()
    return output.clamp(mean - reach, mean + reach)


def trunk_shape_of(state: Mapping[str, Tensor]) -> TrunkShape | None:
    """Return the shape of the trunk whose checkpoint this is; None for another one.

    The channels of a version 3 checkpoint are read as its first planes, which they must equal.
    """
    planes: list[int] = []
    while (key := f"model.layers.{len(planes)}.0.conv1.weight") in state:
        planes.append(state[key].shape[0])
    if not planes:
        return None
    first = state["model.layers.0.0.conv1.weight"].shape[1]
    joint = state.get("model.conv1x1.weight")
    second = planes[0] if joint is None else joint.shape[1]
    return TrunkShape(3 if joint is None else 4, (first, second), tuple(planes))


def total_channels(accurate: Sequence[Tensor], robust: Sequence[Tensor]) -> tuple[int, int]:
    """Return the channels of both bases' maps together, level by level.

    Raises:
        InputError: not two maps a base, maps of other dimensions, or levels that do not fit: both
            bases' maps must have one size, the second level half of the first one's.
    """
    for base, maps in (("accurate", accurate), ("robust", robust)):
        if len(maps) != 2 or any(each.ndim != 4 for each in maps):
            shapes = [tuple(each.shape) for each in maps]
            raise InputError(
                f"{base}_layers: expected two layers with outputs (N, C, H, W), got {shapes}"
            )
        halved = [math.ceil(side / 2) for side in maps[0].shape[2:]]
        if list(maps[1].shape[2:]) != halved:
            raise InputError(
                f"{base}_layers: expected a second map of size {tuple(halved)}, half of the first "
                f"one's; got {tuple(maps[1].shape[2:])}"
            )
    if accurate[0].shape[2:] != robust[0].shape[2:]:
        raise InputError(
            "accurate_layers, robust_layers: expected first maps of one size, got "
            f"{tuple(accurate[0].shape[2:])} and {tuple(robust[0].shape[2:])}"
        )
    return (
        accurate[0].shape[1] + robust[0].shape[1],
        accurate[1].shape[1] + robust[1].shape[1],
    )


def _log_of_sum(log_sigmoid: Tensor, scale: float, constant: float) -> Tensor:
    """Return log(scale * exp(log_sigmoid) + constant), finite where the sigmoid underflows."""
    scaled = log_sigmoid + math.log(scale)
    if constant == 0:
        return scaled
    return torch.logaddexp(scaled, torch.full_like(scaled, math.log(constant)))
