"""A base classifier under Gaussian noise, as a candidate.

What is certified is the vote: the class that the base says most often under fresh noise. Attacks
and RobustBench want logits that are the same at every call and have a gradient; for them the module
returns the logarithm of the mean softmax over a bank of noise draws, fixed by a seed. These are two
classifiers: what breaks one does not break the other.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from bench.decision import mean_answer
from bench.errors import InputError

OWN_PREFIX = "bench.candidates."


class Smoothed(nn.Module):
    """Log of the mean softmax of `base` over a bank of noise draws, the same for every image.

    Args:
        base: images (N, C, H, W) in [0, 1] -> logits (N, K).
        sigma: standard deviation of the noise, in the [0, 1] pixel scale, > 0.
        noise_samples: m, how many draws the bank has, >= 1.
        seed: of the bank.

    Raises:
        InputError: an argument out of its range.
    """

    def __init__(self, base: nn.Module, sigma: float, noise_samples: int, seed: int) -> None:
        super().__init__()
        if not (isinstance(sigma, float | int) and sigma > 0 and math.isfinite(sigma)):
            raise InputError(f"expected sigma > 0, got {sigma}; 0.25, 0.5 and 1 are usual")
        if noise_samples < 1:
            raise InputError(f"expected noise_samples >= 1, got {noise_samples}")
        self.base = base
        self.sigma = float(sigma)
        self.noise_samples = noise_samples
        self.seed = seed
        self._bank = torch.empty(0)
        self._converted = torch.empty(0)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logarithms of the mean probabilities (N, K) of images (N, C, H, W)."""
        bank = self.bank(images)
        noisy = (images.unsqueeze(1) + bank).flatten(0, 1)
        logits = cast(Tensor, self.base(noisy)).view(len(images), len(bank), -1)
        return mean_answer(logits, dim=1)

    def bank(self, images: Tensor) -> Tensor:
        """Return the noise (m, C, H, W) for images of this shape, type and device."""
        shape = (self.noise_samples, *images.shape[1:])
        if self._bank.shape != shape:
            # On the processor, so that the bank is the same on every device.
            generator = torch.Generator().manual_seed(self.seed)
            self._bank = torch.randn(shape, generator=generator) * self.sigma
            self._converted = self._bank
        if self._converted.device != images.device or self._converted.dtype != images.dtype:
            self._converted = self._bank.to(images)
        return self._converted


def smoothed(
    base_architecture: str,
    sigma: float,
    base_args: Mapping[str, Any] | None = None,
    noise_samples: int = 16,
    seed: int = 0,
) -> Smoothed:
    """Return a smoothed classifier; its weights are those of the base, below `base.`.

    Args:
        base_architecture: `module:function` below bench.candidates, which makes the base.
        base_args: its arguments.
        sigma, noise_samples, seed: as in `Smoothed`.

    Raises:
        InputError: sigma or noise_samples is out of its range.
        ValueError: there is no such function, or it takes no such arguments.
    """
    location, _, name = base_architecture.partition(":")
    if not location.startswith(OWN_PREFIX):
        raise ValueError(
            f"expected base_architecture as a function below {OWN_PREFIX[:-1]}, such as "
            f"{OWN_PREFIX}architectures:digits_network; got {base_architecture!r}"
        )
    try:
        build = getattr(importlib.import_module(location), name)
    except (ModuleNotFoundError, AttributeError) as error:
        raise ValueError(f"base_architecture {base_architecture!r}: {error}") from error
    return Smoothed(build(**(base_args or {})), sigma, noise_samples, seed)
