"""A strong attack in few steps: Auto-PGD on the margin of the logits, then on the nearest class.

The margin max_{i != y} z_i - z_y is positive where the model is wrong and, unlike the
cross-entropy, does not flatten where the model is sure. The second search aims for the likeliest
wrong class and takes only samples that survived the first.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bench.attacks.attack import Model, Passes, attack_samples
from bench.attacks.auto_pgd import APGD
from bench.attacks.losses import LOSSES, is_targeted
from bench.suites.suite import ThreatModel

SEARCHES = ("margin", "margin-targeted")
"""Losses, in their order."""


@dataclass(frozen=True)
class Fallen:
    """What an attack did to N samples.

    Attributes:
        images: (N, C, H, W): adversarial where `broken`, else the clean ones.
        broken: (N,) bool.
        passes: of images through the network.
    """

    images: Tensor
    broken: Tensor
    passes: Passes


class ShortAttack:
    """The attack with its settings."""

    def __init__(self, threat_model: ThreatModel, steps: int, seed: int) -> None:
        """Make an attack.

        Args:
            threat_model: the ball, in Linf or L2.
            steps: gradient steps of each of the two searches, at least 1.
            seed: of the random starts.

        Raises:
            InputError: a setting is out of its range.
        """
        self._searches = {
            loss: APGD(
                threat_model.norm,
                threat_model.eps,
                LOSSES[loss],
                targeted=is_targeted(loss),
                steps=steps,
            )
            for loss in SEARCHES
        }
        self._seed = seed

    def __call__(self, model: Model, images: Tensor, labels: Tensor, indices: Tensor) -> Fallen:
        """Attack samples that the model classifies correctly.

        Args:
            model: images (n, C, H, W) in [0, 1] to logits (n, K).
            images: (N, C, H, W), on the model's device.
            labels: (N,) int64.
            indices: (N,) int64, which name the samples' random starts.
        """
        found = images.clone()
        broken = torch.zeros_like(labels, dtype=torch.bool)
        forward = forward_backward = 0
        for loss, attack in self._searches.items():
            standing = (~broken).nonzero().flatten()
            if not len(standing):
                break
            done = attack_samples(
                attack,
                model,
                images[standing],
                labels[standing],
                name=f"monitor-{loss}",
                targets=1 if is_targeted(loss) else 0,
                seed=self._seed,
                indices=indices[standing],
            )
            found[standing] = done.images
            broken[standing] = done.broken
            forward += len(standing)
            forward_backward += int(done.steps.sum())
        return Fallen(found, broken, Passes(forward, forward_backward))
