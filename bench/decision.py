"""When logits decide for a class: the one rule, wherever a prediction is made, tried or counted.

A row of logits decides for the class of the highest one, the first of equals, if all of them are
finite. A row that holds NaN or an infinity is no answer, so it decides for no class, `NO_CLASS`:
wrong on a clean image, and under attack a break, whatever the label is. An infinity counts like
NaN wherever it stands in the row: most come from an overflow, and what is computed from them
(losses, probabilities, means) is no number. The size of finite logits does not matter.

The rule looks at logits as the candidate returns them, before any conversion.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

NO_CLASS = -1
"""The class of a row of logits that are not all finite."""


def answered(logits: Tensor) -> Tensor:
    """Return which rows of logits (N, K) are answers, (N,) bool: those that are finite throughout.

    Also for probabilities, logarithms of them, and any other (N, K) that must be finite.
    """
    return torch.isfinite(logits).all(dim=1)


def classes_of(logits: Tensor) -> Tensor:
    """Return the classes (N,) int64 that logits (N, K) decide for, `NO_CLASS` where for none."""
    return torch.where(answered(logits), logits.argmax(dim=1), NO_CLASS)


def mean_answer(logits: Tensor, dim: int) -> Tensor:
    """Return the logarithm of the mean probabilities over draws, as one answer to each image.

    A draw whose logits are not finite gives its share to no class. Where no class has a larger
    share than those draws together, the mean is no answer either: NaN for all classes.

    Args:
        logits: (m, N, K) or (N, m, K), of m draws.
        dim: the one of the draws, 0 or 1.

    Returns:
        (N, K), with a finite gradient where it is finite.
    """
    finite = torch.isfinite(logits).all(dim=2, keepdim=True)
    each = torch.log_softmax(torch.where(finite, logits, 0.0), dim=2)
    mean = torch.where(finite, each, -math.inf).logsumexp(dim=dim) - math.log(logits.shape[dim])
    without = (~finite).to(mean.dtype).mean(dim=dim)
    undecided = (without > 0) & (mean.amax(dim=1, keepdim=True).exp() <= without)
    return torch.where(undecided, math.nan, mean)
