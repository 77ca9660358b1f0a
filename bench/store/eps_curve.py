"""The curve of robust accuracy against eps, from each sample's smallest known perturbation.

A sample is right at a radius if its smallest known perturbation is larger. So the curve never
rises, begins at the clean accuracy, and passes through the run's robust accuracy at its radius. A
sample on which the candidate failed counts as not robust from that radius on, without an image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from bench.statistics.clopper_pearson import clopper_pearson_lower, clopper_pearson_upper
from bench.store.records import FloatArray
from bench.store.run_folder import RunFolder
from bench.store.summary import EpsCurve
from bench.store.tables import Tables

PARTS = 8
"""Points of a summary's curve from 0 to eps; as many follow to twice that."""
FAILURE = 0.05
"""The probability that an interval at one radius does not hold."""


@dataclass(frozen=True)
class Curve:
    """A step function, with the interval at each radius by itself.

    Attributes:
        radii: (m,) ascending, the first one 0: where the accuracy falls.
        accuracy: (m,) in [0, 1], from each radius on up to the next one.
        low, high: (m,) exact binomial 95% bounds.
        not_broken: samples that count as right at every radius.
    """

    radii: FloatArray
    accuracy: FloatArray
    low: FloatArray
    high: FloatArray
    not_broken: int


def falling_radii(smallest: pd.DataFrame, samples: pd.DataFrame, eps: float) -> FloatArray:
    """Return the radius (n,) from which each sample counts as wrong; infinite: none is known.

    Args:
        smallest: with the columns `index` and `radius`, a row for each sample.
        samples: with the columns `index` and `robust`, in any order.
        eps: the threat model's radius.
    """
    radii = smallest["radius"].to_numpy(np.float64)
    robust = samples.set_index("index")["robust"].reindex(smallest["index"]).to_numpy(bool)
    return np.where(np.isinf(radii) & ~robust, eps, radii)


def falling_radii_of(folder: RunFolder, eps: float) -> FloatArray | None:
    """Return the same from a run's files; None if the run did not look for smallest perturbations.

    Raises:
        InputError: a file is damaged.
    """
    smallest = folder.smallest()
    return None if smallest is None else falling_radii(smallest, folder.samples(), eps)


def accuracy_at(smallest: FloatArray, radii: npt.ArrayLike) -> FloatArray:
    """Return the share of samples that are right at each of some radii.

    Args:
        smallest: (n,) radii of `falling_radii`: 0 where a sample is wrong without attack, infinite
            where no perturbation is known; n >= 1.
        radii: (m,), at least 0.

    Returns:
        (m,) in [0, 1].
    """
    broken = np.searchsorted(np.sort(smallest), np.asarray(radii), side="right")
    return np.asarray(1 - broken / len(smallest), dtype=np.float64)


def curve(smallest: FloatArray) -> Curve:
    """Return the whole curve; argument as for `accuracy_at`."""
    n = len(smallest)
    radii = np.unique(np.append(smallest[np.isfinite(smallest)], 0.0))
    right = n - np.searchsorted(np.sort(smallest), radii, side="right").astype(np.int64)
    return Curve(
        radii,
        right / n,
        clopper_pearson_lower(right, n, FAILURE / 2),
        clopper_pearson_upper(right, n, FAILURE / 2),
        int(np.isinf(smallest).sum()),
    )


def eps_curve_of(tables: Tables, eps: float) -> EpsCurve | None:
    """Return what a summary keeps of the curve; None if the run did not look for it.

    Args:
        tables: of the run.
        eps: the threat model's radius.
    """
    if tables.smallest is None:
        return None
    smallest = falling_radii(tables.smallest, tables.samples, eps)
    radii = [eps * part / PARTS for part in range(2 * PARTS + 1)]
    accuracies = accuracy_at(smallest, radii).tolist()
    # The smallest radius at which at least half of the samples are wrong.
    median = float(np.sort(smallest)[(len(smallest) - 1) // 2])
    return EpsCurve(
        points=list(zip(radii, accuracies, strict=True)),
        median_radius=median if np.isfinite(median) else None,
        not_broken=int(np.isinf(tables.smallest["radius"]).sum()),
    )
