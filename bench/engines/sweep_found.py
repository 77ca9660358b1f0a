"""What a sweep keeps of images: both bases' answers, from which follow the mix's at all weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bench.candidates.mix import mix_at_fixed_weight
from bench.decision import classes_of


@dataclass(frozen=True)
class BaseAnswers:
    """Both bases' answers to m images: log-probabilities (m, K) on the CPU, as they are mixed."""

    accurate: Tensor
    robust: Tensor

    def predictions(self, alpha: float) -> Tensor:
        """Return (m,) the mix's classes at one weight, `NO_CLASS` where it has no answer."""
        return classes_of(self.mixed(alpha))

    def mixed(self, alpha: float) -> Tensor:
        """Return (m, K) the mix's log-probabilities at one weight."""
        return mix_at_fixed_weight(self.accurate, self.robust, alpha)


@dataclass
class Found:
    """The adversarial images so far, without the images: m entries in the order of their finding.

    Attributes:
        row: (m,) places within the task.
        alpha: (m,) float64, the weights at which they were found.
        answers: of the bases.
    """

    row: Tensor
    alpha: Tensor
    answers: BaseAnswers

    def add(self, rows: Tensor, alpha: float, answers: BaseAnswers) -> None:
        """Take further images in."""
        self.row = torch.cat([self.row, rows])
        found_at = torch.full((len(rows),), alpha, dtype=torch.float64)
        self.alpha = torch.cat([self.alpha, found_at])
        self.answers = BaseAnswers(
            torch.cat([self.answers.accurate, answers.accurate]),
            torch.cat([self.answers.robust, answers.robust]),
        )

    def breaking(self, alpha: float, standing: Tensor, labels: Tensor) -> Tensor:
        """Return entries (b,) that break standing samples at a weight: the nearest of each.

        Args:
            standing: (N,) bool.
            labels: (N,).
        """
        predictions = self.answers.predictions(alpha)
        good = standing[self.row] & (predictions != labels[self.row])
        entries = good.nonzero().flatten()
        nearest = entries[torch.argsort((self.alpha[entries] - alpha).abs(), stable=True)]
        _, first = np.unique(self.row[nearest].numpy(), return_index=True)
        return nearest[torch.from_numpy(first)]
