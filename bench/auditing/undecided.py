"""The test images about which an audit's attacks must say something."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bench.auditing.records import Clean
from bench.statistics.betting import Round


@dataclass(frozen=True)
class Undecided:
    """The test images about which attacks must say something, in numbers of this audit.

    Attributes:
        indices: (U,) in the data set: those that may be robust.
        scores: (U,) known of each in advance; None: nothing is.
        size: N, of the whole test set; the others are known not to be robust.
    """

    indices: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float64] | None
    size: int

    def rounds(
        self, sizes: Sequence[int], indices: Sequence[int], standing: Collection[int]
    ) -> list[Round]:
        """Return the draws of these images, round by round."""
        place = {index: unit for unit, index in enumerate(self.indices.tolist())}
        found, start = [], 0
        for size in sizes:
            part = [each for each in indices[start : start + size] if each in place]
            units = np.array([place[each] for each in part], dtype=np.int64)
            found.append(Round(units, np.array([each in standing for each in part], dtype=bool)))
            start += size
        return found


def undecided(size: int, clean: Clean | None, broken: Collection[int], varies: bool) -> Undecided:
    """Return which images may be robust, as far as is known before the attacks.

    Args:
        size: N, of the test set.
        clean: predictions without attack; an image that is wrong is not robust. Only predictions
            of the whole test set are used: they were made before any image was drawn.
        broken: indices that given witnesses break.
        varies: whether the candidate's answers vary, so that one wrong answer decides nothing.
    """
    known = set(broken)
    if clean is None or not clean.is_whole or varies:
        left = np.array([index for index in range(size) if index not in known], dtype=np.int64)
        return Undecided(left, None, size)
    rows = [
        row for row, index in enumerate(clean.indices) if clean.right[row] and index not in known
    ]
    return Undecided(
        np.array([clean.indices[row] for row in rows], dtype=np.int64),
        np.array([clean.margins[row] for row in rows], dtype=np.float64),
        size,
    )
