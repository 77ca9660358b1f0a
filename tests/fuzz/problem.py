"""What is right, computed apart from bench: predictions, margins, exact robustness."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Images = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
Booleans = npt.NDArray[np.bool_]

BALL_TOLERANCE = 2e-6
"""By how much a witness may leave its ball, absolutely: rounding of x + delta, generously."""

DECIDING_DRAWS = 32
"""Of a randomized classifier: their mean is documented to be its answer."""


@dataclass(frozen=True)
class Problem:
    """A classifier, its samples and a threat model.

    Attributes:
        logits: from images (n, C, H, W) to (n, K), of one draw if the classifier is randomized.
        images: (N, C, H, W) float32 in [0, 1].
        labels: (N,) int64.
        norm: Linf or L2.
        eps: radius.
        rounding: relative difference of logits below which either class may lead.
        linear: weight (K, D) and bias (K,) where the classifier is linear on [0, 1]; None if not.
        draws: how many answers to an image are averaged, as probabilities; 1: deterministic.
        exact_attack: whether the attacks of the suite are sure to find what a linear classifier
            has.
    """

    logits: Callable[[Images], Array]
    images: Images
    labels: Labels
    norm: str
    eps: float
    rounding: float = 1e-4
    linear: tuple[Array, Array] | None = None
    draws: int = 1
    exact_attack: bool = False

    def first(self, n: int) -> Problem:
        """The same for the first n samples."""
        return replace(self, images=self.images[:n], labels=self.labels[:n])

    def take(self, rows: Labels) -> Problem:
        """The same for the samples in rows (n,)."""
        return replace(self, images=self.images[rows], labels=self.labels[rows])

    def margins(self, images: Images, labels: Labels) -> tuple[Array, Array]:
        """By how much the label leads the best other class, and what rounding may change of it.

        A non-finite answer leads nowhere: minus infinity.

        Returns:
            two arrays (n,).
        """
        answers = self.logits(images)
        if self.draws > 1:
            shares = [_softmax(self.logits(images)) for _ in range(self.draws)]
            answers = np.mean(shares, axis=0)
        finite = np.isfinite(answers).all(axis=1)
        safe = np.where(finite[:, None], answers, 0.0)
        own = safe[np.arange(len(safe)), labels]
        others = safe.copy()
        others[np.arange(len(safe)), labels] = -np.inf
        margin = own - others.max(axis=1)
        doubt = self.rounding * np.abs(safe).max(axis=1) + 1e-30
        if self.draws > 1:
            spread = np.std(shares, axis=0).max(axis=1)
            doubt = np.maximum(doubt, 5 / np.sqrt(DECIDING_DRAWS) * spread)
        return np.where(finite, margin, -np.inf), doubt

    def unanswered(self, images: Images, labels: Labels) -> Booleans:
        """Which images (n, C, H, W) have an answer that is not finite."""
        return ~np.isfinite(self.margins(images, labels)[0])

    def right(self) -> tuple[Booleans, Booleans]:
        """Which samples (N,) are surely right without attack, and which may be."""
        margin, doubt = self.margins(self.images, self.labels)
        return margin > doubt, margin >= -doubt

    def surely_robust(self) -> Booleans | None:
        """Which samples (N,) no image of the ball can break; None where that is not known."""
        if self.linear is None:
            return None
        worst, scale = self._worst_margins(self.linear)
        return worst > 1e-4 * scale

    def surely_breakable(self) -> Booleans | None:
        """Which samples (N,) some image of the ball breaks; None where that is not known."""
        if self.linear is None:
            return None
        worst, scale = self._worst_margins(self.linear)
        return worst < -1e-3 * scale

    def _worst_margins(self, linear: tuple[Array, Array]) -> tuple[Array, Array]:
        """The smallest margin (N,) over ball and [0, 1], exactly, and the logits' scale (N,)."""
        weight, bias = linear
        flat = self.images.reshape(len(self.images), -1).astype(np.float64)
        answers = flat @ weight.T + bias
        worst = np.full(len(flat), np.inf)
        for row, (image, label) in enumerate(zip(flat, self.labels, strict=True)):
            low, high = np.maximum(-image, -1), np.minimum(1 - image, 1)
            for other in range(len(bias)):
                if other == label:
                    continue
                slope = weight[label] - weight[other]
                margin = answers[row, label] - answers[row, other]
                step = (
                    np.where(slope > 0, np.maximum(low, -self.eps), np.minimum(high, self.eps))
                    if self.norm == "Linf"
                    else _steepest_in_ball(slope, low, high, self.eps)
                )
                worst[row] = min(worst[row], margin + slope @ step)
        return worst, np.abs(answers).max(axis=1) + 1e-30

    def outside(self, images: Images, clean: Images) -> Booleans:
        """Which images (n, C, H, W) leave [0, 1] or the ball around `clean`."""
        difference = (images.astype(np.float64) - clean.astype(np.float64)).reshape(len(images), -1)
        distance = (
            np.abs(difference).max(axis=1)
            if self.norm == "Linf"
            else np.sqrt((difference**2).sum(axis=1))
        )
        flat = images.reshape(len(images), -1)
        inside = (flat >= 0).all(axis=1) & (flat <= 1).all(axis=1)
        outside: Booleans = ~(inside & (distance <= self.eps * (1 + 1e-5) + BALL_TOLERANCE))
        return outside


def _steepest_in_ball(slope: Array, low: Array, high: Array, radius: float) -> Array:
    """The step d within [low, high] and an L2 ball that makes slope . d least.

    It is clip(-t slope, low, high) for the largest t whose step is inside the ball.
    """
    farthest = np.where(slope > 0, low, np.where(slope < 0, high, 0.0))
    if np.linalg.norm(farthest) <= radius:
        return farthest
    inside, outside = 0.0, 1.0
    while np.linalg.norm(np.clip(-outside * slope, low, high)) < radius:
        outside *= 2
    for _ in range(80):
        middle = (inside + outside) / 2
        fits = np.linalg.norm(np.clip(-middle * slope, low, high)) <= radius
        inside, outside = (middle, outside) if fits else (inside, middle)
    return np.clip(-inside * slope, low, high)


def _softmax(logits: Array) -> Array:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: Array = powers / powers.sum(axis=1, keepdims=True)
    return shares
