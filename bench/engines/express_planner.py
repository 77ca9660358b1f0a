"""Where the next passes of an express evaluation go: which arm is pulled for which samples.

An arm is a short attack: a loss, a start, a few classes to aim for, a number of steps. To pull it
is to run it on samples that stand. Every sample has a *margin left*, the share of its margin at the
start that no search has used up yet: near 0, the next search may break it; near 1, nothing has come
near. What arms broke so far among samples with alike margins says how likely the next pull is to
break one. So the passes go where they break something, and the same rates say how much more passes
would break: the estimate of what is left.

Nothing here knows of models or images. Decisions rest on records alone, so an interrupted run
makes them again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy.stats import gamma

EDGES = (0.05, 0.15, 0.3, 0.5, 0.75)
"""Margins left are told apart by these bounds: six bands, from those that nearly broke to those out
of reach."""

BANDS = len(EDGES) + 1

PRIOR_RATES = (0.1, 0.06, 0.03, 0.015, 0.006, 0.0015)
"""Breaks a pull to expect in each band before anything is known, for the first pull of a sample."""

PRIOR_PULLS = 6.0
"""Pulls whose weight those rates have."""

ARM_PULLS = 6.0
"""Pulls whose weight the rate of all arms has for one arm in one cell."""

ARM_BREAKS = 1.0
"""Breaks whose weight it has for how much better one arm is than all."""

ARMS_FOR_ALL = 2
"""Arms that every sample gets: one against all classes, one against the nearest."""

DEPTHS = 4
"""Samples are told apart by how many pulls they stood, too: 1, 2, 3, or more. Each stands them
better than the one before."""

DECLINE = 0.5
"""How much less the next pull breaks than the one before, before anything is known."""

WITHOUT_MARGIN = BANDS - 2
"""The band of samples whose margin is not known."""


@dataclass(frozen=True)
class Arm:
    """An attack as the planner knows it.

    Attributes:
        name: of the attack.
        cost: of one pull, in forward passes.
        tried: whether it is pulled for some samples in any case, budget permitting, because what
            other arms broke says nothing of what it breaks.
    """

    name: str
    cost: float
    tried: bool = False


@dataclass(frozen=True)
class Pull:
    """What is done next.

    Attributes:
        arm: its number.
        rows: samples that it is pulled for, ascending.
    """

    arm: int
    rows: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Remaining:
    """How many samples more passes would break, in samples.

    Attributes:
        expected: the mean.
        low, high: the bounds of its 95% interval.
    """

    expected: float
    low: float
    high: float


@dataclass
class Planner:
    """Keeps what every pull did, and says what comes next.

    Attributes:
        arms: the first two are pulled for every sample before anything else.
        samples: how many there are; the estimate is a share of them.
        standing: (N,) bool, samples that no attack has broken and that were right at first.
        budget: in forward passes, of all pulls together, for each sample that stands.
        goal: samples; with fewer expected to be left, nothing more is pulled.
        most_rows: of one pull after the first.
    """

    arms: Sequence[Arm]
    samples: int
    standing: npt.NDArray[np.bool_]
    budget: float
    goal: float
    most_rows: int
    spent: float = 0.0
    left: npt.NDArray[np.float64] = field(init=False)
    pulled: npt.NDArray[np.bool_] = field(init=False)
    pulls: npt.NDArray[np.float64] = field(init=False)
    breaks: npt.NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        rows = len(self.standing)
        self.left = np.full(rows, np.nan)
        self.pulled = np.zeros((len(self.arms), rows), dtype=bool)
        self.pulls = np.zeros((len(self.arms), BANDS, DEPTHS))
        self.breaks = np.zeros((len(self.arms), BANDS, DEPTHS))

    def next_pull(self) -> Pull | None:
        """Return what to do next; None: nothing is worth it, or the budget is spent."""
        for arm in range(min(ARMS_FOR_ALL, len(self.arms))):
            rows = (self.standing & ~self.pulled[arm]).nonzero()[0]
            if len(rows):
                return Pull(arm, rows)
        if self.spent >= self.budget * self.standing.sum():
            return None
        waiting = self.standing[None, :] & ~self.pulled
        if self.remaining().expected <= self.goal:
            untried = [arm.tried and not self.pulled[i].any() for i, arm in enumerate(self.arms)]
            waiting &= np.array(untried)[:, None]
        if not waiting.any():
            return None
        rates = self.rates()[:, self.bands(), self.depths()]
        worth = rates / np.array([[arm.cost] for arm in self.arms])
        worth[~waiting] = -1.0
        arm = int(worth.max(axis=1).argmax())
        rows = waiting[arm].nonzero()[0]
        # Of alike ones the nearest first; the order of rows decides between equals.
        order = np.lexsort((np.nan_to_num(self.left[rows], nan=1.0), -worth[arm, rows]))
        left = self.budget * self.standing.sum() - self.spent
        affordable = max(1, int(left // self.arms[arm].cost))
        return Pull(arm, np.sort(rows[order[: min(self.most_rows, affordable)]]))

    def learn(
        self,
        pull: Pull,
        broken: npt.NDArray[np.bool_],
        margins: Mapping[int, tuple[float, float]],
    ) -> None:
        """Take note of what a pull did.

        Args:
            pull: as it was asked for.
            broken: (n,) bool, for each of its rows.
            margins: at the start and at best, by row, as far as the arm measures them.
        """
        cells = self.bands()[pull.rows], self.depths()[pull.rows]
        self.pulled[pull.arm, pull.rows] = True
        self.spent += len(pull.rows) * self.arms[pull.arm].cost
        np.add.at(self.pulls[pull.arm], cells, 1.0)
        np.add.at(self.breaks[pull.arm], cells, broken)
        self.standing[pull.rows[broken]] = False
        for row, (start, best) in margins.items():
            if start < 0:
                self.left[row] = np.fmin(self.left[row], min(max(best / start, 0.0), 1.0))

    def nearest_and_others(self, count: int) -> npt.NDArray[np.int64]:
        """Return samples that stand, at most so many, ascending.

        Half of them came nearest to breaking; the others are spread over the rest, since margins
        mean nothing where gradients mislead.
        """
        rows = self.standing.nonzero()[0]
        order = np.argsort(np.nan_to_num(self.left[rows], nan=1.0), kind="stable")
        half = count // 2
        rest = order[half:]
        spread = rest[:: max(1, -(-len(rest) // max(1, count - half)))]
        return np.sort(rows[np.concatenate([order[:half], spread[: count - half]])])

    def bands(self) -> npt.NDArray[np.int64]:
        """Return (N,) the band of each sample's margin left."""
        bands = np.searchsorted(EDGES, np.nan_to_num(self.left, nan=1.0), side="right")
        return np.where(np.isnan(self.left), WITHOUT_MARGIN, bands).astype(np.int64)

    def depths(self) -> npt.NDArray[np.int64]:
        """Return (N,) how many pulls each sample has stood, 0 for one or none, up to the most."""
        depths: npt.NDArray[np.int64] = np.clip(self.pulled.sum(axis=0) - 1, 0, DEPTHS - 1)
        return depths

    def rates(self) -> npt.NDArray[np.float64]:
        """Return (arms, `BANDS`, `DEPTHS`) the breaks to expect of a pull.

        An arm's rate starts from that of all arms after the first, times how much better the arm
        was than they were.
        """
        shared, _ = self._shared_rates()
        expected = (self.pulls * shared).sum(axis=(1, 2))
        better = (self.breaks.sum(axis=(1, 2)) + ARM_BREAKS) / (expected + ARM_BREAKS)
        start = np.minimum(shared * better[:, None, None], 1.0)
        rates: npt.NDArray[np.float64] = (self.breaks + ARM_PULLS * start) / (
            self.pulls + ARM_PULLS
        )
        return rates

    def remaining(self) -> Remaining:
        """Return how many more samples would break.

        The pulls that were not made, and one more of each sample, as a search with a much larger
        budget would make it, break samples at their arms' rates, each next pull of a sample less.
        Rates have gamma distributions: those of Poisson counts after the prior.
        """
        shared, variance = self._shared_rates()
        bands, depths = self.bands()[self.standing], self.depths()[self.standing]
        ahead = np.where(self.pulled[1:, self.standing], 0.0, self.rates()[1:, bands, depths])
        ahead = np.vstack([ahead, shared[bands, depths][None]])  # the one more
        weights = DECLINE ** np.arange(len(ahead))
        breaks = (-np.sort(-ahead, axis=0) * weights[:, None]).sum(axis=0)
        expected = float(breaks.sum())
        if expected <= 0:
            return Remaining(0.0, 0.0, 0.0)
        exposure = np.zeros((BANDS, DEPTHS))
        np.add.at(exposure, (bands, depths), breaks / shared[bands, depths])
        spread = float((exposure**2 * variance).sum())
        # Breaks themselves scatter around what is expected of them.
        shape, scale = expected**2 / (spread + expected), (spread + expected) / expected
        low, high = gamma.ppf([0.025, 0.975], shape, scale=scale)
        most = float(self.standing.sum())
        # Samples are whole ones.
        return Remaining(
            min(expected, most), float(min(np.floor(low), most)), float(min(np.ceil(high), most))
        )

    def _shared_rates(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return mean and variance (`BANDS`, `DEPTHS`) of the rate of all arms after the first.

        The rate of samples that stood one more pull starts from that of those that did not.
        """
        pulls, breaks = self.pulls[1:].sum(axis=0), self.breaks[1:].sum(axis=0)
        mean = np.empty((BANDS, DEPTHS))
        prior = np.array(PRIOR_RATES)
        for depth in range(DEPTHS):
            known = breaks[:, depth] + PRIOR_PULLS * prior
            mean[:, depth] = known / (pulls[:, depth] + PRIOR_PULLS)
            prior = DECLINE * mean[:, depth]
        return mean, mean / (pulls + PRIOR_PULLS)
