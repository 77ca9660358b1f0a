"""Mixes: an accurate and a robust base whose probabilities are averaged.

Y. Bai, B. G. Anderson, A. Kim, S. Sojoudi, "Improving the Accuracy-Robustness Trade-Off of
Classifiers via Adaptive Smoothing", SIMODS 2024, arXiv 2301.12554:

    logits(x) = log((1 - alpha(x)) softmax(s_g g(x)) + alpha(x) softmax(s_h h(x)))

with the accurate base g, the robust base h, their scales s_g, s_h > 0 and the weight alpha in
[0, 1]. `MixedClassifier` is what attacks, sweeps and reports may ask of any mix, `Mix` the one with
a fixed weight.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bench.errors import InputError
from bench.modules import in_eval_mode


@dataclass(frozen=True)
class MixAnswer:
    """What a mix says of N images, and how it came to it; from one pass through each base.

    Attributes:
        log_probabilities: (N, K) of the mix, what `forward` returns.
        accurate: (N, K) log-probabilities of the accurate base, as they are mixed.
        robust: (N, K) log-probabilities of the robust base, as they are mixed.
        alpha: (N,) weight of the robust base, in [0, 1].
        gamma: (N,) the mixing network's output before the sigmoid; None for a fixed weight.
    """

    log_probabilities: Tensor
    accurate: Tensor
    robust: Tensor
    alpha: Tensor
    gamma: Tensor | None


class MixedClassifier(nn.Module, ABC):
    """Any mix of two bases.

    A base maps images (N, C, H, W) to logits (N, K), or to a pair of logits and feature maps. The
    bases stay in evaluation mode, whatever `train` says: they are frozen.

    Attributes:
        accurate: the base that is right on clean images.
        robust: the base that withstands attacks.
        accurate_scale: s_g > 0, the factor on the accurate base's logits.
        robust_scale: s_h > 0, the factor on the robust base's logits.
    """

    part_names: tuple[str, ...] = ("accurate", "robust")
    """The networks inside, by path: each may be traced, folded or lowered on its own."""
    bends_logits: bool = False
    """Whether it changes its bases' logits otherwise than by a factor before they are mixed."""

    def __init__(
        self, accurate: nn.Module, robust: nn.Module, accurate_scale: float, robust_scale: float
    ) -> None:
        super().__init__()
        self.accurate = in_eval_mode(accurate)
        self.robust = in_eval_mode(robust)
        self.accurate_scale = positive("accurate_scale", accurate_scale)
        self.robust_scale = positive("robust_scale", robust_scale)

    @property
    @abstractmethod
    def alpha_range(self) -> tuple[float, float]:
        """The smallest and the largest weight that an image can get."""

    @abstractmethod
    def answer(self, images: Tensor) -> MixAnswer:
        """Return everything that one pass through both bases tells of images (N, C, H, W)."""

    @abstractmethod
    def at_alpha(self, alpha: float) -> MixedClassifier:
        """Return the same bases at a fixed weight; 0 and 1 are the bases alone."""

    @property
    def has_mixing_network(self) -> bool:
        """Whether the weight depends on the image."""
        return self.trained_part is not None

    @property
    def trained_part(self) -> nn.Module | None:
        """What a weights file of the mix holds, beside its bases; None for nothing."""
        return None

    def forward(self, images: Tensor) -> Tensor:
        """Return the log-probabilities (N, K) of images (N, C, H, W) in [0, 1]."""
        return self.answer(images).log_probabilities

    def ask_bases(self, images: Tensor) -> tuple[Any, Any]:
        """Return both bases' logits (N, K) of images (N, C, H, W), feature maps beside them."""
        # A clone for the first, since a base may change its input in place.
        return self.accurate(images.clone()), self.robust(images)

    def accurate_log_probabilities(self, logits: Tensor) -> Tensor:
        """Map the accurate base's logits (N, K) to the log-probabilities that are mixed."""
        return scaled_log_softmax(logits, self.accurate_scale)

    def robust_log_probabilities(self, logits: Tensor) -> Tensor:
        """Map the robust base's logits (N, K) to the log-probabilities that are mixed."""
        return scaled_log_softmax(logits, self.robust_scale)

    def train(self, mode: bool = True) -> MixedClassifier:
        """Set the mode of everything but the bases."""
        super().train(mode)
        in_eval_mode(self.accurate)
        in_eval_mode(self.robust)
        return self


class FixedWeightMix(MixedClassifier):
    """A mix with one weight for every image.

    At alpha = 0 and 1 the output is exactly one base's log-probabilities, and the other base is not
    run.

    Attributes:
        alpha: weight of the robust base, in [0, 1].
    """

    def __init__(
        self,
        accurate: nn.Module,
        robust: nn.Module,
        alpha: float,
        accurate_scale: float,
        robust_scale: float,
    ) -> None:
        super().__init__(accurate, robust, accurate_scale, robust_scale)
        self.alpha = fraction("alpha", alpha)

    @property
    def alpha_range(self) -> tuple[float, float]:
        """The weight, twice."""
        return self.alpha, self.alpha

    def forward(self, images: Tensor) -> Tensor:
        """Return the log-probabilities (N, K) of images (N, C, H, W) in [0, 1]."""
        if self.alpha == 0:
            return self.accurate_log_probabilities(logits_of(self.accurate(images)))
        if self.alpha == 1:
            return self.robust_log_probabilities(logits_of(self.robust(images)))
        return self.answer(images).log_probabilities

    def answer(self, images: Tensor) -> MixAnswer:
        """Run both bases on images (N, C, H, W), whatever the weight is, and return everything."""
        of_accurate, of_robust = self.ask_bases(images)
        accurate = self.accurate_log_probabilities(logits_of(of_accurate))
        robust = self.robust_log_probabilities(logits_of(of_robust))
        check_classes(accurate, robust)
        return MixAnswer(
            log_probabilities=mix_at_fixed_weight(accurate, robust, self.alpha),
            accurate=accurate,
            robust=robust,
            alpha=images.new_full((len(images),), self.alpha),
            gamma=None,
        )


class Mix(FixedWeightMix):
    """The mix of the bases' scaled probabilities, with one weight for every image."""

    def __init__(
        self,
        accurate: nn.Module,
        robust: nn.Module,
        alpha: float,
        accurate_scale: float = 1.0,
        robust_scale: float = 1.0,
    ) -> None:
        """Make a mix.

        Args:
            accurate: images (N, C, H, W) in [0, 1] -> logits (N, K).
            robust: the same, for the same classes.
            alpha: weight of the robust base, in [0, 1].
            accurate_scale: factor on the accurate base's logits, > 0.
            robust_scale: factor on the robust base's logits, > 0.

        Raises:
            InputError: a weight or a scale outside its range.
        """
        super().__init__(accurate, robust, alpha, accurate_scale, robust_scale)

    def accurate_probabilities(self, images: Tensor) -> Tensor:
        """Return the accurate base's scaled probabilities (N, K) of images (N, C, H, W) in [0, 1].

        They are not finite where that base has no answer; neither has the mix there.
        """
        return self.accurate_log_probabilities(logits_of(self.accurate(images))).exp()

    def at_alpha(self, alpha: float) -> Mix:
        """Return the same bases at another weight."""
        return Mix(self.accurate, self.robust, alpha, self.accurate_scale, self.robust_scale)

    def extra_repr(self) -> str:
        """Return the constants, as the constructor takes them."""
        return (
            f"alpha={self.alpha}, accurate_scale={self.accurate_scale}, "
            f"robust_scale={self.robust_scale}"
        )


def as_mix(module: nn.Module) -> MixedClassifier | None:
    """Return the module as a mix, None if it is none."""
    return module if isinstance(module, MixedClassifier) else None


def logits_of(output: Tensor | tuple[Tensor, object]) -> Tensor:
    """Return the logits (N, K) in a base's output, which may bring feature maps beside them."""
    return output if isinstance(output, Tensor) else output[0]


def scaled_log_softmax(logits: Tensor, scale: float) -> Tensor:
    """Return log softmax(scale * logits), (N, K), in float32 at least."""
    precise = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return torch.log_softmax(precise if scale == 1 else scale * precise, dim=1)


def mix_at_fixed_weight(accurate: Tensor, robust: Tensor, alpha: float) -> Tensor:
    """Return log((1 - alpha) exp(accurate) + alpha exp(robust)), (N, K).

    The sum is taken of logarithms, so that the result and its gradient stay finite where a
    probability underflows. At alpha = 0 and 1 the result is exactly one of the two.
    """
    if alpha == 0:
        return accurate
    if alpha == 1:
        return robust
    return torch.logaddexp(accurate + math.log1p(-alpha), robust + math.log(alpha))


def check_classes(accurate: Tensor, robust: Tensor) -> None:
    """Refuse bases whose answers (N, K) have different K.

    Raises:
        InputError: they do.
    """
    if accurate.shape != robust.shape:
        raise InputError(
            "expected two bases with one number of classes, got an accurate base with "
            f"{accurate.shape[1]} and a robust base with {robust.shape[1]}"
        )


def fraction(field: str, value: float) -> float:
    """Return the value, if it is in [0, 1].

    Raises:
        InputError: it is not.
    """
    if not 0 <= value <= 1:
        raise InputError(f"{field}: expected a number in [0, 1], got {value}")
    return float(value)


def positive(field: str, value: float) -> float:
    """Return the value, if it is finite and > 0.

    Raises:
        InputError: it is not.
    """
    if not 0 < value < math.inf:
        raise InputError(f"{field}: expected a number > 0, got {value}")
    return float(value)
