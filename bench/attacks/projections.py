"""Projections: onto balls and boxes, and onto a hyperplane inside the box [0, 1].

All are exact to rounding and work on each row by itself. None sorts: each threshold is the root of
a concave piecewise linear function of one variable, which Newton's method reaches from the left
after finitely many steps, in practice a few.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from bench.attacks.distances import norms, per_image

_SMALLEST_NORM = 1e-12
_SMALLEST_NORMAL = 1e-8
"""Below this a coordinate of an L2 hyperplane's normal counts as zero, as in the reference."""

NEWTON_STEPS = 12
"""On a GPU, where stopping early would have to ask the device."""
_NEWTON_LIMIT = 1000


def onto_box_(points: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """Clamp points (N, ...) to [lower, upper], in place."""
    return torch.clamp(points, lower, upper, out=points)


def onto_ball_(points: Tensor, centres: Tensor, eps: float) -> Tensor:
    """Scale into the L2 ball, then clamp to [0, 1], in place.

    Not the nearest point of the intersection, but Auto-PGD's step: both parts only shorten.

    Args:
        points: (N, ...).
        centres: (N, ...) in [0, 1].
        eps: radius.
    """
    points.sub_(centres)
    length = norms(points, "L2")
    scale = length.clamp(max=eps) / (length + _SMALLEST_NORM)
    return points.mul_(per_image(scale, points)).add_(centres).clamp_(0, 1)


def onto_hyperplane(
    points: Tensor, normals: Tensor, offsets: Tensor, norm: Literal["Linf", "L2"]
) -> Tensor:
    """The shortest way from a point in [0, 1] to a hyperplane, staying inside [0, 1].

    argmin ||d|| such that <w, x + d> = b and 0 <= x + d <= 1 (Croce and Hein 2020, "Minimally
    distorted adversarial examples with a fast adaptive boundary attack", arXiv 1907.02044,
    section 2.1). Every coordinate moves towards the hyperplane by min(rate * t, room): rate 1 in
    Linf, |w| in L2, with the smallest t that gets there. Where the hyperplane does not meet the
    box, all go as far as they can.

    Args:
        points: (N, D) x, in [0, 1].
        normals: (N, D) w.
        offsets: (N,) <w, x> - b.
        norm: which one is smallest.

    Returns:
        (N, D) d.
    """
    side = torch.where(offsets >= 0, 1.0, -1.0).to(points.dtype).unsqueeze(1)
    flipped = normals * side
    towards_one = torch.lt(flipped, 0, out=torch.empty_like(points))
    room = towards_one.sub_(points).abs_()
    if norm == "Linf":
        weights = flipped.abs()
        distance = fill_threshold(weights, room, offsets.abs())
        moved = torch.minimum(room, distance.unsqueeze(1), out=room)
        return moved.mul_(flipped.sign_()).neg_()
    size = flipped.abs()
    usable = torch.ge(size, _SMALLEST_NORMAL, out=torch.empty_like(size))
    flipped.mul_(usable)
    limits = room.div_(size.clamp_(min=_SMALLEST_NORMAL)).mul_(usable)
    weights = torch.mul(flipped, flipped, out=size)
    factor = fill_threshold(weights, limits, offsets.abs())
    return torch.minimum(limits, factor.unsqueeze(1), out=limits).mul_(flipped).neg_()


def fill_threshold(weights: Tensor, limits: Tensor, wanted: Tensor) -> Tensor:
    """The smallest t >= 0 with sum_i weights_i min(t, limits_i) = wanted; infinite if none is.

    The sum f is concave and piecewise linear in t, so Newton's steps from the left stay left of the
    root and end on it. Sums over the saturated coordinates depend on t only through which those
    are: once a step changes none of them it gives the same t again, bit for bit, so a row's result
    does not depend on how many steps its neighbours need.

    Args:
        weights: (N, D), not negative.
        limits: (N, D), not negative.
        wanted: (N,), not negative.

    Returns:
        (N,).
    """
    tiny = torch.finfo(weights.dtype).tiny
    total = weights.sum(dim=1)
    filled = weights * limits
    mask, products = torch.empty_like(weights), torch.empty_like(weights)
    threshold = torch.zeros_like(wanted)
    early = weights.device.type == "cpu"
    for _ in range(_NEWTON_LIMIT if early else NEWTON_STEPS):
        torch.le(limits, threshold.unsqueeze(1), out=mask)
        saturated = torch.mul(weights, mask, out=products).sum(dim=1)
        gained = torch.mul(filled, mask, out=products).sum(dim=1)
        step = (wanted - gained) / (total - saturated).clamp_(min=tiny)
        higher = torch.maximum(threshold, step)
        if early and not bool((higher > threshold).any()):
            break
        threshold = higher
    # The differences above lose digits; one more step from the sums themselves regains them.
    reached = torch.minimum(limits, threshold.unsqueeze(1), out=products).mul_(weights).sum(dim=1)
    slope = torch.gt(limits, threshold.unsqueeze(1), out=mask).mul_(weights).sum(dim=1)
    correction = (wanted - reached) / slope.clamp(min=tiny)
    return torch.where(slope > 0, threshold + correction, threshold).clamp_(min=0)
