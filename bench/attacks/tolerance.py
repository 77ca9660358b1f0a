"""What it means to be inside the eps-ball: the one definition, for attacks, engines and checks.

An attack computes x' = x + delta in float32 with ||delta|| <= eps and stores x'. Rounding moves
each coordinate of x' by at most half the spacing of floats below 1, 2^-25; a second rounding comes
from eps itself and from bounds such as x + eps that are rounded before x' is clamped to them. The
distance of the stored images is therefore allowed to exceed eps by

* Linf: 2^-24, two such roundings (6e-8, two thousandths of a per cent of 8/255);
* L2: sqrt(D) 2^-24 for D coordinates, and 2^-20 eps for the rounding of the norm that the
  perturbation was scaled by, a float32 sum of D squares;
* L1: D 2^-24, and 2^-20 eps.

The distance itself is measured in float64. The range [0, 1] has no tolerance: clamping is exact.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bench.attacks.distances import Norm, norms
from bench.errors import EvaluationError

_ROUNDING = 2.0**-24
_NORM_ROUNDING = 2.0**-20
FAR = 0.01
"""Share of eps, and of the range of a pixel, beyond which an image is outside by no rounding."""


def tolerance(norm: Norm, eps: float, dimensions: int) -> float:
    """Return by how much a stored image's distance may exceed `eps` and still count.

    Args:
        norm: of the ball.
        eps: its radius, in the [0, 1] pixel scale.
        dimensions: coordinates of one image, C H W.
    """
    if norm == "Linf":
        return _ROUNDING
    coordinates = math.sqrt(dimensions) if norm == "L2" else dimensions
    return coordinates * _ROUNDING + eps * _NORM_ROUNDING


def inside(images: Tensor, clean: Tensor, norm: Norm, eps: float) -> Tensor:
    """Return whether images are inside [0, 1] exactly, and inside the ball up to `tolerance`.

    Args:
        images: (N, ...), as they would be stored.
        clean: (N, ...), the centres.
        norm: of the ball.
        eps: its radius.

    Returns:
        (N,) bool; False where an image has a coordinate that is not a number.
    """
    flat = images.detach().flatten(1)
    distance = norms(flat.double() - clean.detach().flatten(1).double(), norm)
    close = distance <= eps + tolerance(norm, eps, flat.shape[1])
    return close & (flat >= 0).all(dim=1) & (flat <= 1).all(dim=1)


def least_radii(images: Tensor, clean: Tensor, norm: Norm) -> Tensor:
    """Return the smallest radius of a ball around the clean image that an image is `inside` of.

    That is its distance less the tolerance; the distance itself where it is no more than that, so
    that only equal images have radius 0.

    Args:
        images: (N, ...), as they would be stored.
        clean: (N, ...), the centres.
        norm: of the ball.

    Returns:
        (N,) float64, up to rounding in float64.
    """
    flat = images.detach().flatten(1).double()
    distance = norms(flat - clean.detach().flatten(1).double(), norm)
    fixed = tolerance(norm, 0.0, flat.shape[1])
    growth = tolerance(norm, 1.0, flat.shape[1]) - fixed
    least = (distance - fixed) / (1 + growth)
    return least.where(least > 0, distance)


def check_claims(name: str, images: Tensor, clean: Tensor, norm: Norm, eps: float) -> None:
    """Refuse an attack that claims success with images far outside: it does not project them.

    Its successes would be dropped without a word, and the candidate would look robust.

    Args:
        name: of the attack.
        images: (N, ...), N >= 1, which it calls adversarial.
        clean: (N, ...), the centres.
        norm: of the ball.
        eps: its radius.

    Raises:
        EvaluationError: an image is outside by more than a hundredth of eps, or of [0, 1].
    """
    flat = images.detach().flatten(1).double()
    distance = norms(flat - clean.detach().flatten(1).double(), norm)
    beyond = torch.maximum(-flat, flat - 1).amax(dim=1)
    far = (distance > (1 + FAR) * eps) | (beyond > FAR)
    if bool(far.any()):
        worst, low, high = (float(each) for each in (distance.max(), flat.min(), flat.max()))
        raise EvaluationError(
            f"attack {name}: expected images within {norm} {eps:g} of the clean ones and in [0, 1],"
            f" got {int(far.sum())} that fool the candidate from outside, up to {norm} {worst:g} "
            f"away and with pixels from {low:g} to {high:g}; project them, as an attack must"
        )
