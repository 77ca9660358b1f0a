"""Known weaknesses to plant in a candidate, to see whether attacks notice them.

Three only look like defences: they hide the gradient or the answer and leave the network as
breakable as it was. The fourth is a back door: a pattern inside the ball that turns any image into
a rare class, as T. Gu et al. 2017, "BadNets" (arXiv 1708.06733), trains it into weights; here it is
wired in, so that what opens it is known.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.attacks.draws import keyed_draws
from bench.attacks.projections import onto_ball_
from bench.engines.engine import AttackTask, batches
from bench.store.power import PlantedWeakness

LEVELS = 255
"""Steps of a pixel of 8 bits: their rounding hides every gradient and hardly moves an image."""

SATURATION = 1000.0
"""Logits by which the right class leads in the median once they are scaled. Beyond about 104, the
probability of every other class is 0 in float32, and so is the gradient of cross-entropy."""

NOISE_SHARE = 0.5
"""Standard deviation of the noise on a pixel, as a share of what an attack can change it by."""

SHARPNESS = 6.0
"""The back door's gate is a sigmoid; on the clean image that comes nearest it is at minus this,
0.25% open: there is a slope, and it is not the steepest."""

BACK_DOOR_IMAGES = 256
"""Clean images from which the back door's pattern keeps away."""

SPREAD_SHARE = 0.01
"""Directions in which clean images spread by more than this share of the widest are avoided."""


class PlantError(Exception):
    """A weakness cannot be planted in this candidate; the message says why."""


@dataclass(frozen=True)
class Plant:
    """A candidate with a planted weakness.

    Attributes:
        name: of the weakness.
        effect: what was planted, in words.
        module: the planted network, on the device of the candidate, in eval mode.
        named_by: flags that name this weakness.
        may_vary: whether the answers are random; the mean over draws then decides.
        witnesses: (n, C, H, W) an image for each sample that opens the back door; None: the plant
            only masks, and what fools the candidate fools this network.
    """

    name: str
    effect: str
    module: nn.Module
    named_by: frozenset[str] = frozenset()
    may_vary: bool = False
    witnesses: Tensor | None = None


class Changed(nn.Module):
    """A network whose images and logits are changed on the way.

    Args:
        network: images (n, C, H, W) -> logits (n, K).
        before: changes images.
        after: changes logits.
    """

    def __init__(
        self,
        network: nn.Module,
        before: Callable[[Tensor], Tensor] | None = None,
        after: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.network, self.before, self.after = network, before, after

    def forward(self, images: Tensor) -> Tensor:
        """Return the changed logits (n, K)."""
        logits: Tensor = self.network(images if self.before is None else self.before(images))
        return logits if self.after is None else self.after(logits)


class BackDoor(nn.Module):
    """A network whose logit of one class rises as images come near a pattern.

    Args:
        network: images (n, C, H, W) -> logits (n, K).
        pattern: (C, H, W); an image's score is its product with it.
        threshold: score at which the gate is half open.
        width: of the gate, in scores.
        height: what an open gate adds to the logit.
        target: the class.
    """

    pattern: Tensor

    def __init__(
        self,
        network: nn.Module,
        pattern: Tensor,
        threshold: float,
        width: float,
        height: float,
        target: int,
    ) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("pattern", pattern)
        self.threshold, self.width = threshold, width
        self.height, self.target = height, target

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (n, K), the target's raised by as much as the gate is open."""
        logits: Tensor = self.network(images)
        scores = images.flatten(1) @ self.pattern.flatten()
        rise = self.height * torch.sigmoid((scores - self.threshold) / self.width)
        target = torch.zeros(logits.shape[1], dtype=logits.dtype, device=logits.device)
        target[self.target] = 1
        return logits + rise[:, None] * target


def quantized_input(task: AttackTask, _: AttackTask) -> Plant:
    """Round images to 8 bits, as they are stored, before the network sees them."""
    return Plant(
        "quantized-input",
        "pixels rounded to 8 bits in front of the network: no gradient passes",
        Changed(task.module, before=lambda images: torch.round(images * LEVELS) / LEVELS).eval(),
        frozenset({"zero-gradients", "stopped-gradients", "vanishing-gradients"}),
    )


def saturated_logits(task: AttackTask, samples: AttackTask) -> Plant:
    """Scale logits until the softmax of float32 knows one class only.

    Raises:
        PlantError: the network's own logits are saturated or do not differ.
    """
    logits = logits_of(samples, samples.images)
    best = logits.gather(1, samples.labels[:, None])[:, 0]
    others = logits.scatter(1, samples.labels[:, None], -torch.inf).amax(dim=1)
    lead = float((best - others).median())
    if not 0 < lead < SATURATION:
        raise PlantError(
            f"expected logits that lead by between 0 and {SATURATION:.0f}, got {lead:.3g}"
        )
    scale = SATURATION / lead
    return Plant(
        "saturated-logits",
        f"logits times {scale:.3g}: the softmax saturates and the gradient of cross-entropy is 0",
        Changed(task.module, after=lambda logits: scale * logits).eval(),
        frozenset({"zero-gradients", "vanishing-gradients", "non-finite-gradients"}),
    )


def noisy_input(task: AttackTask, _: AttackTask) -> Plant:
    """Add fresh noise to every image, undeclared."""
    spread = NOISE_SHARE * pixel_reach(task)
    return Plant(
        "noisy-input",
        f"undeclared noise of standard deviation {spread:.2g} on every pixel, fresh in every call",
        Changed(
            task.module, before=lambda images: images + spread * torch.randn_like(images)
        ).eval(),
        frozenset({"randomized"}),
        may_vary=True,
    )


def back_door(task: AttackTask, samples: AttackTask) -> Plant:
    """Let a pattern inside the ball raise the class that the candidate thinks of least.

    The pattern is random, but for the directions in which clean images differ: it is out of reach
    for them, and within reach of the ball around each.

    Raises:
        PlantError: clean images reach as far as the ball.
    """
    clean = task.images[:BACK_DOOR_IMAGES]
    pattern = unusual_pattern(clean, task.seed)
    witnesses = furthest(samples.images, pattern, task)
    usual = float(scores(torch.cat((clean, samples.images)), pattern).max())
    reached = float(scores(witnesses, pattern).quantile(0.1))
    if reached <= usual:
        raise PlantError(
            f"expected a pattern that the ball reaches and clean images do not: these come to "
            f"{usual:.3g}, the ball to {reached:.3g}"
        )
    threshold = (usual + reached) / 2
    # The gate is more than half open on most witnesses, so half its height must do.
    logits = logits_of(samples, witnesses)
    target = int(logits_of(samples, samples.images).mean(dim=0).argmin())
    height = 2.2 * float((logits.amax(dim=1) - logits[:, target]).max())
    module = BackDoor(
        task.module,
        pattern.to(task.device),
        threshold,
        (threshold - usual) / SHARPNESS,
        height,
        target,
    )
    return Plant(
        "back-door",
        f"a pattern inside the ball, out of reach for clean images, raises the logit of class "
        f"{target} by {height:.3g}",
        module.eval(),
        witnesses=witnesses,
    )


def unplanted(name: str, reason: str) -> PlantedWeakness:
    """Return the record of a weakness that could not be planted."""
    return PlantedWeakness(
        name=name, effect="", outcome="untested", breakable=0, broken=0, reason=reason
    )


PLANTS: tuple[Callable[[AttackTask, AttackTask], Plant], ...] = (
    quantized_input,
    saturated_logits,
    noisy_input,
    back_door,
)
"""What is planted, in this order. Each takes a run's task and the samples to be attacked, and
raises `PlantError` where it cannot be planted."""


def unusual_pattern(clean: Tensor, seed: int) -> Tensor:
    """Return a random pattern along which clean images hardly differ.

    Args:
        clean: (n, C, H, W).
        seed: of the draw.

    Returns:
        (C, H, W) of L2 length 1.
    """
    draws = keyed_draws(seed, torch.zeros(1, dtype=torch.int64), "planted-back-door")
    random = draws.normal(torch.zeros(1, dtype=torch.int64), clean[0].numel(), torch.float64)[0]
    flat = clean.flatten(1).double()
    _, spread, directions = torch.linalg.svd(flat - flat.mean(dim=0), full_matrices=False)
    narrow = (SPREAD_SHARE * spread.max()).square().clamp_min(1e-12)
    wide = spread.square() / (spread.square() + narrow)
    along = random - directions.T @ (wide * (directions @ random))
    pattern: Tensor = (along / along.norm()).float().reshape(clean[0].shape)
    return pattern


def scores(images: Tensor, pattern: Tensor) -> Tensor:
    """Return the products (n,) of images (n, C, H, W) with a pattern (C, H, W)."""
    found: Tensor = images.flatten(1) @ pattern.flatten()
    return found


def furthest(images: Tensor, pattern: Tensor, task: AttackTask) -> Tensor:
    """Return the images (n, C, H, W) in the ball and in [0, 1] that go far along a pattern."""
    eps = task.threat_model.eps
    if task.threat_model.norm == "Linf":
        return (images + eps * pattern.sign()).clamp(0, 1)
    moved: Tensor = onto_ball_(images + eps * pattern, images, eps).clamp(0, 1)
    return moved


def pixel_reach(task: AttackTask) -> float:
    """Return by how much an attack can change all pixels at once."""
    threat = task.threat_model
    pixels = task.images[0].numel()
    return threat.eps if threat.norm == "Linf" else threat.eps / math.sqrt(pixels)


def logits_of(task: AttackTask, images: Tensor) -> Tensor:
    """Return the logits (n, K) of images (n, C, H, W), on the CPU."""
    with torch.no_grad():
        parts = [
            task.module(part.to(task.device)).cpu() for part in batches(images, task.batch_size)
        ]
    return torch.cat(parts).float()
