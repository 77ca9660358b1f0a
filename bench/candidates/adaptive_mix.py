"""A mix whose weight comes from a mixing network that sees features of both bases."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bench.candidates.features import FeatureExtractor
from bench.candidates.mix import Mix, MixAnswer, MixedClassifier, check_classes
from bench.candidates.mixing_network import (
    PUBLISHED_PLANES,
    TRAINING_GAMMA_BIAS,
    TRAINING_GAMMA_SCALE,
    MixingNetwork,
    TrunkShape,
    total_channels,
)


class AdaptiveMix(MixedClassifier):
    """Adaptive smoothing, arXiv 2301.12554: each image has a weight of its own.

    Logits and feature maps of a base come from one pass. The gradient with respect to the images
    has the mixing network's part.
    """

    part_names = ("accurate", "robust", "mixing_network.model")

    def __init__(
        self,
        accurate: nn.Module,
        robust: nn.Module,
        *,
        image_shape: Sequence[int],
        accurate_layers: Sequence[str],
        robust_layers: Sequence[str],
        alpha_scale: float,
        alpha_bias: float,
        gamma_scale: float = TRAINING_GAMMA_SCALE,
        gamma_bias: float = TRAINING_GAMMA_BIAS,
        accurate_scale: float = 1.0,
        robust_scale: float = 1.0,
        version: int = 4,
        planes: Sequence[int] = PUBLISHED_PLANES,
    ) -> None:
        """Make an adaptive mix with a freshly initialised mixing network.

        Args:
            accurate: images (N, C, H, W) in [0, 1] -> logits (N, K).
            robust: the same, for the same classes.
            image_shape: (C, H, W); one blank image tells which shapes the feature maps have.
            accurate_layers: the two submodules of the accurate base whose outputs are the feature
                maps; the second map has half the size of the first.
            robust_layers: the same for the robust base, with maps of the same sizes.
            alpha_scale: width of alpha's range, in (0, 1].
            alpha_bias: the lower end of alpha's range.
            gamma_scale: factor on the normalised output of the mixing network, > 0.
            gamma_bias: added to it.
            accurate_scale: factor on the accurate base's logits, > 0.
            robust_scale: factor on the robust base's logits, > 0.
            version: 3 or 4, of the mixing network.
            planes: output channels of the mixing network's stages.

        Raises:
            InputError: an argument outside its range, a layer that a base does not have, feature
                maps that do not fit together, or bases with different numbers of classes.
        """
        extractors = (
            FeatureExtractor(accurate, accurate_layers, "accurate_layers"),
            FeatureExtractor(robust, robust_layers, "robust_layers"),
        )
        super().__init__(*extractors, accurate_scale, robust_scale)
        reference = next(accurate.parameters(), torch.zeros(()))
        blank = torch.zeros(1, *image_shape, device=reference.device, dtype=reference.dtype)
        with torch.no_grad():
            (accurate_logits, accurate_maps), (robust_logits, robust_maps) = (
                extractor(blank) for extractor in extractors
            )
        check_classes(accurate_logits, robust_logits)
        channels = total_channels(accurate_maps, robust_maps)
        self.mixing_network = MixingNetwork(
            TrunkShape(version, channels, tuple(planes)),
            alpha_scale,
            alpha_bias,
            gamma_scale,
            gamma_bias,
        )

    @property
    def alpha_range(self) -> tuple[float, float]:
        """The ends of the range of alpha."""
        return self.mixing_network.alpha_range

    @property
    def trained_part(self) -> nn.Module:
        """The mixing network: the bases come from submissions of their own."""
        return self.mixing_network

    def answer(self, images: Tensor) -> MixAnswer:
        """Return everything about images (N, C, H, W), from one pass through each network."""
        (accurate_logits, accurate_maps), (robust_logits, robust_maps) = self.ask_bases(images)
        accurate = self.accurate_log_probabilities(accurate_logits)
        robust = self.robust_log_probabilities(robust_logits)
        gamma: Tensor = self.mixing_network(accurate_maps, robust_maps)
        log_rest, log_alpha = self.mixing_network.log_weights(gamma)
        mixed = torch.logaddexp(accurate + log_rest[:, None], robust + log_alpha[:, None])
        return MixAnswer(
            log_probabilities=mixed,
            accurate=accurate,
            robust=robust,
            alpha=self.mixing_network.alpha(gamma),
            gamma=gamma,
        )

    def at_alpha(self, alpha: float) -> Mix:
        """Return the same bases at a fixed weight, without the mixing network."""
        return Mix(self.accurate, self.robust, alpha, self.accurate_scale, self.robust_scale)
