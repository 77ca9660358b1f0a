"""Certificates of a mix whose robust base is a smoothed classifier that votes.

The mix says (1 - alpha) p_g(x) + alpha p_h(x), p_g the accurate base's probabilities and p_h the
probabilities with which the robust base votes under noise. Within the radius the vote alone decides
it, whatever the accurate base says there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bench.certify.bounds import vote_bounds
from bench.certify.mix import smoothing_radius
from bench.certify.smoothing import Smoothing
from bench.store.records import FloatArray, IntArray


@dataclass(frozen=True)
class MixedVote:
    """Concludes from votes what a mix with a fixed weight says.

    Attributes:
        accurate: (N, K) p_g of the images, without noise; not finite where that base has no answer.
        alpha: the weight of the vote, in [0, 1].
        smoothing: of the robust base.
    """

    accurate: FloatArray
    alpha: float
    smoothing: Smoothing

    def __call__(
        self, row: int, guesses: IntArray, votes: IntArray, draws: int
    ) -> tuple[int, float] | None:
        """The class of image `row` and the L2 radius within which it cannot change.

        Over the draws, the probability that the mix says another class at the image, or anywhere
        within the radius, is at most `smoothing.failure_probability`.

        Args:
            guesses: (K,) votes of the draws that choose the class.
            votes: (K,) votes of the draws that bound the probabilities.
            draws: how many those were, with those that voted for no class.

        Returns:
            None if the draws do not tell the class, or the accurate base has no answer. The radius
            is 0 where the class is certain at the image, but the vote alone does not decide.
        """
        p_g = self.accurate[row]
        if not np.isfinite(p_g).all():
            return None
        p_h = guesses / max(guesses.sum(), 1)
        guess = int(((1 - self.alpha) * p_g + self.alpha * p_h).argmax())
        bounds = vote_bounds(
            votes[None], np.array([guess]), self.smoothing.failure_probability, draws=draws
        )
        p_g_others, p_h_others = np.delete(p_g, guess), bounds.others
        if votes.sum() < draws:
            # To have no answer is one more outcome of the vote; the guess leaves it the rest.
            p_g_others = np.append(p_g_others, 0.0)
            p_h_others = np.append(p_h_others, 1 - bounds.right[:, None], axis=1)
        lead = (1 - self.alpha) * (p_g[guess] - p_g_others)
        lead += self.alpha * (bounds.right[0] - p_h_others[0])
        if lead.min() <= 0:
            return None
        (radius,) = smoothing_radius(bounds.right, p_h_others, self.alpha, self.smoothing.sigma)
        return guess, float(radius)
