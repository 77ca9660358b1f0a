"""What mixes with any numbers answer, from one pass through the parts of a mix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.candidates.mix import MixedClassifier, scaled_log_softmax
from bench.decision import answered

MixNumbers = dict[str, float]
"""Arguments of a mix: `alpha`, or `alpha_scale`, `alpha_bias`, `gamma_scale` and `gamma_bias`; and
`accurate_scale`, `robust_scale`."""

BATCH_SIZE = 250


@dataclass(frozen=True)
class PartAnswers:
    """The answers of a mix's parts to N images.

    Attributes:
        accurate: (N, K) unscaled log-probabilities of the accurate base.
        robust: (N, K) unscaled log-probabilities of the robust base.
        gamma: (N,) the mixing network's, with scale 1 and bias 0; None if the weight is fixed.
    """

    accurate: Tensor
    robust: Tensor
    gamma: Tensor | None

    def right(self, grid: Sequence[MixNumbers], labels: Tensor) -> Tensor:
        """Return whether mixes with each of S numbers classify correctly, (S, N) for labels (N,).

        A mix is correct if its weight lies in an interval that depends on the scales alone.
        """
        result = torch.empty(len(grid), len(labels), dtype=torch.bool, device=labels.device)
        by_scales: dict[tuple[float, float], list[int]] = {}
        for row, numbers in enumerate(grid):
            scales = numbers["accurate_scale"], numbers["robust_scale"]
            by_scales.setdefault(scales, []).append(row)
        for (accurate, robust), rows in by_scales.items():
            low, high = right_weights(
                scaled_log_softmax(self.accurate, accurate).exp(),
                scaled_log_softmax(self.robust, robust).exp(),
                labels,
            )
            alpha = self._weights([grid[row] for row in rows])
            result[rows] = (alpha > low) & (alpha < high)
        return result

    def _weights(self, grid: Sequence[MixNumbers]) -> Tensor:
        """Return each mix's weights of the robust base, (S, N) or (S, 1)."""

        def column(name: str) -> Tensor:
            return self.robust.new_tensor([[numbers[name]] for numbers in grid])

        if self.gamma is None:
            return column("alpha")
        gamma = column("gamma_scale") * self.gamma + column("gamma_bias")
        return column("alpha_scale") * torch.sigmoid(gamma) + column("alpha_bias")


def right_weights(accurate: Tensor, robust: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the open interval of weights with which a mix classifies correctly.

    The label leads class i by (1 - alpha) d_g + alpha d_h, where d_g and d_h are its leads in the
    bases. This is linear in alpha, so that each class bounds alpha on one side.

    Args:
        accurate: (N, K) probabilities of the accurate base.
        robust: (N, K) probabilities of the robust base.
        labels: (N,) int64.

    Returns:
        Lower and upper ends (N,), not limited to [0, 1]. If no weight is correct, or a base's
        probabilities are not finite, the lower end is not below the upper one.
    """
    column = labels.unsqueeze(1)
    lead = accurate.gather(1, column) - accurate
    slope = robust.gather(1, column) - robust - lead
    crossing = -lead / slope
    is_other = torch.ones_like(accurate, dtype=torch.bool).scatter(1, column, False)
    low = crossing.where(is_other & (slope > 0), float("-inf")).amax(dim=1)
    high = crossing.where(is_other & (slope < 0), float("inf")).amin(dim=1)
    never = (is_other & (slope == 0) & (lead <= 0)).any(dim=1)
    never |= ~(answered(accurate) & answered(robust))
    return low.masked_fill(never, float("inf")), high


@torch.no_grad()
def part_answers(mix: MixedClassifier, images: Tensor) -> PartAnswers:
    """Return the answers of a mix's parts to images (N, C, H, W).

    Args:
        mix: In eval mode, with scale 1 for the bases, and scale 1 and bias 0 for gamma.
        images: In [0, 1].
    """
    answers = [mix.answer(some) for some in torch.split(images, BATCH_SIZE)]
    return PartAnswers(
        torch.cat([each.accurate for each in answers]),
        torch.cat([each.robust for each in answers]),
        torch.cat([each.gamma for each in answers if each.gamma is not None])
        if mix.has_mixing_network
        else None,
    )
