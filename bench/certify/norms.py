"""What a radius that is proved in L2 proves in another norm."""

from __future__ import annotations

import math
from collections.abc import Sequence


def linf_radius(l2_radius: float, shape: Sequence[int]) -> float:
    """Return the radius of the largest Linf ball inside an L2 ball: r / sqrt(d).

    A change of at most e in each of d values has an L2 length of at most e sqrt(d), and of exactly
    that where all change by e.

    Args:
        l2_radius: r, at least 0, in the [0, 1] pixel scale.
        shape: (C, H, W) of the images; d is its product.
    """
    return l2_radius / math.sqrt(math.prod(shape))
