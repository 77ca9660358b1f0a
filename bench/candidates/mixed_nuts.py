"""MixedNUTS: a training-free mix with a nonlinear transformation of the robust base's logits.

Y. Bai, M. Zhou, V. M. Patel, S. Sojoudi, "MixedNUTS: Training-Free Accuracy-Robustness Balance via
Nonlinearly Mixed Classifiers", TMLR 2024, arXiv 2402.02263. The accurate base votes for one class;
the robust base's logits are standardised, bent and scaled, so that it is confident where it is
right and hardly so where it is attacked:

    z' = (z - mean) / deviation, both over the at most 250 largest logits
    c = GELU(z' + bias),  logits = scale * |c|^power * sign(c)
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.candidates.mix import (
    FixedWeightMix,
    fraction,
    logits_of,
    mix_at_fixed_weight,
    positive,
    scaled_log_softmax,
)
from bench.decision import answered

LARGEST_LOGITS = 250
SURROGATE_RAW_SHARE = 0.9
LOG_OF_NOTHING = -1e30
"""Stands for log 0: finite, and its exponential is exactly 0 beside any other log-probability."""


class MixedNuts(FixedWeightMix):
    """The nonlinear mix of arXiv 2402.02263, at one weight for every image.

    Its output is flat in the accurate base: attack it through `surrogate(mix)`.
    """

    bends_logits = True

    def __init__(
        self,
        accurate: nn.Module,
        robust: nn.Module,
        *,
        alpha: float,
        scale: float,
        power: float,
        bias: float,
        surrogate_alpha: float,
    ) -> None:
        """Make a mix.

        Args:
            accurate: images (N, C, H, W) in [0, 1] -> logits (N, K).
            robust: the same, for the same classes.
            alpha: weight of the robust base, in [0, 1].
            scale: s > 0, of the transformed logits.
            power: p >= 1, of the transformation.
            bias: b, added to the standardised logits.
            surrogate_alpha: weight of the robust base in the surrogate, in [0, 1].

        Raises:
            InputError: a number outside its range.
        """
        super().__init__(accurate, robust, alpha, accurate_scale=1.0, robust_scale=1.0)
        self.scale = positive("scale", scale)
        self.power = 1 + positive("power - 1", power - 1) if power != 1 else 1.0
        self.bias = float(bias)
        self.surrogate_alpha = fraction("surrogate_alpha", surrogate_alpha)

    def accurate_log_probabilities(self, logits: Tensor) -> Tensor:
        """Return 0 for the predicted class and nearly log 0 for the others; without a gradient.

        NaN for all classes where the logits are not finite, so that the mix has no answer either.
        """
        chosen = functional.one_hot(logits.argmax(dim=1), logits.shape[1])
        precise = logits.to(torch.promote_types(logits.dtype, torch.float32))
        votes = torch.zeros_like(precise).masked_fill(chosen == 0, LOG_OF_NOTHING)
        return torch.where(answered(logits)[:, None], votes, math.nan)

    def robust_log_probabilities(self, logits: Tensor) -> Tensor:
        """Return the log-probabilities of the transformed logits."""
        return torch.log_softmax(self.transform(logits), dim=1)

    def transform(self, logits: Tensor) -> Tensor:
        """Transform the robust base's logits (N, K) nonlinearly, in float32 at least."""
        bent = functional.gelu(standardize(logits) + self.bias)
        return self.scale * bent.abs().pow(self.power) * bent.sign()

    def at_alpha(self, alpha: float) -> MixedNuts:
        """Return the same bases and transformation at another weight."""
        return MixedNuts(
            self.accurate,
            self.robust,
            alpha=alpha,
            scale=self.scale,
            power=self.power,
            bias=self.bias,
            surrogate_alpha=self.surrogate_alpha,
        )

    def extra_repr(self) -> str:
        """Return the constants, as the constructor takes them."""
        return (
            f"alpha={self.alpha}, scale={self.scale}, power={self.power}, bias={self.bias}, "
            f"surrogate_alpha={self.surrogate_alpha}"
        )


class MixedNutsSurrogate(nn.Module):
    """The published differentiable stand-in: both bases as they are, a little transformation.

    The accurate base has its own softmax; the robust base nine tenths of its own and one tenth of
    the transformed probabilities; the weight is `surrogate_alpha`.
    """

    def __init__(self, mix: MixedNuts) -> None:
        """Share the bases of a mix."""
        super().__init__()
        self.mix = mix

    def forward(self, images: Tensor) -> Tensor:
        """Return the log-probabilities (N, K) of images (N, C, H, W) in [0, 1]."""
        of_accurate, of_robust = self.mix.ask_bases(images)
        accurate = scaled_log_softmax(logits_of(of_accurate), 1.0)
        logits = logits_of(of_robust)
        raw = scaled_log_softmax(logits, 1.0) + math.log(SURROGATE_RAW_SHARE)
        bent = self.mix.robust_log_probabilities(logits) + math.log1p(-SURROGATE_RAW_SHARE)
        robust = torch.logaddexp(raw, bent)
        return mix_at_fixed_weight(accurate, robust, self.mix.surrogate_alpha)


def surrogate(mix: MixedNuts) -> MixedNutsSurrogate:
    """Return the surrogate of a mix; what a submission names in its field of that name."""
    return MixedNutsSurrogate(mix)


def standardize(logits: Tensor) -> Tensor:
    """Standardize logits (N, K) by mean and deviation of each row's largest entries."""
    precise = logits.to(torch.promote_types(logits.dtype, torch.float32))
    largest = precise.topk(min(LARGEST_LOGITS, precise.shape[1]), dim=1).values
    variance, mean = torch.var_mean(largest, dim=1, keepdim=True)
    return (precise - mean) / (variance + 1e-8).sqrt()
