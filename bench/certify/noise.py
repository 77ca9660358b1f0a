"""Gaussian noise that belongs to a draw of a sample, whatever batch the draw is in.

The noise of a draw depends on the seed, the sample's place in the data set and the number of the
draw, and on nothing else. Both sources rest on Philox (Salmon et al. 2011), which keeps no state
but a counter: on a processor NumPy's, on a GPU our own streams, which never leave it. They are two
kinds of noise, so that a run says which it had.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from bench.attacks.draws import keyed_draws
from bench.errors import InputError

STREAM = "certify"


@dataclass(frozen=True)
class Piece:
    """Consecutive draws of one sample.

    Attributes:
        row: the sample's place among the images at hand.
        index: its place in the data set.
        first: number of the first draw.
        count: how many.
    """

    row: int
    index: int
    first: int
    count: int


class Noise(Protocol):
    """Standard normal numbers for pieces of work."""

    name: str

    def normal(self, pieces: Sequence[Piece], shape: Sequence[int]) -> Tensor:
        """(sum of counts, *shape) float32, in the order of the pieces; the caller may change it."""


class ProcessorNoise:
    """NumPy's Philox, keyed by (seed, index), with Box and Muller's transform.

    NumPy makes the random words alone, in a seventh of the time of its normal numbers, and torch
    transforms those of a whole batch at once. Every draw has counters of its own, so that none is
    made in vain. The words are the same on every processor; the last digits of logarithms and
    cosines need not be.

    Args:
        seed: in [0, 2^64).

    Raises:
        InputError: the seed is out of its range.
    """

    name = "philox-box-muller"

    def __init__(self, seed: int) -> None:
        _check_seed(seed)
        self.seed = seed

    def normal(self, pieces: Sequence[Piece], shape: Sequence[int]) -> Tensor:
        """See `Noise`."""
        numbers = math.prod(shape)
        counters = -(-numbers // _NUMBERS_A_COUNTER)
        words = np.empty((sum(piece.count for piece in pieces), counters * 4), dtype=np.uint64)
        row = 0
        for piece in pieces:
            # A Philox steps to the next counter before it makes its first words.
            first = np.array([piece.first * counters, 0, 0, 1], dtype=np.uint64)
            key = np.array([self.seed, piece.index], dtype=np.uint64)
            rows = words[row : row + piece.count]
            rows.ravel()[:] = np.random.Philox(counter=first, key=key).random_raw(rows.size)
            row += piece.count
        normal = _box_muller(torch.from_numpy(words).view(torch.int32))
        return normal[:, :numbers].reshape(-1, *shape)


_NUMBERS_A_COUNTER = 8
"""A Philox of four 64-bit words; a normal number takes 32 bits."""


def _box_muller(words: Tensor) -> Tensor:
    """Standard normal numbers (n, 2 m) float32 from random words (n, 2 m) int32.

    G. E. P. Box and M. E. Muller, "A note on the generation of random normal deviates", 1958.
    """
    rows, half = len(words), words.shape[1] // 2
    uniform = words.view(rows, 2, half).transpose(0, 1).to(torch.float32, copy=True).contiguous()
    # |int32| / 2^31 lies in [0, 1], as fine near 0, where lengths are large, as the words are.
    length = uniform[0].abs_().mul_(2**-31).clamp_min_(2**-32).log_().mul_(-2).sqrt_()
    angle = uniform[1].mul_(math.pi * 2**-31)
    normal = torch.empty(rows, 2, half)
    torch.mul(length, angle.cos(), out=normal[:, 0])
    torch.mul(length, angle.sin_(), out=normal[:, 1])
    return normal.view(rows, -1)


class DeviceNoise:
    """The attacks' Philox streams, made where the passes run.

    Args:
        seed: in [0, 2^64).
        device: where.

    Raises:
        InputError: the seed is out of its range.
    """

    name = "keyed-philox"

    def __init__(self, seed: int, device: torch.device) -> None:
        _check_seed(seed)
        self.seed = seed
        self.device = device

    def normal(self, pieces: Sequence[Piece], shape: Sequence[int]) -> Tensor:
        """See `Noise`."""
        counts = torch.tensor([piece.count for piece in pieces])
        indices = torch.tensor([piece.index for piece in pieces]).repeat_interleave(counts)
        events = torch.cat([torch.arange(p.first, p.first + p.count) for p in pieces])
        draws = keyed_draws(self.seed, indices.to(self.device), STREAM)
        noise = draws.normal(events.to(self.device), math.prod(shape), torch.float32)
        return noise.reshape(-1, *shape)


def noise_for(seed: int, device: torch.device) -> Noise:
    """The source that is cheap on a device.

    Raises:
        InputError: the seed is out of its range.
    """
    return ProcessorNoise(seed) if device.type == "cpu" else DeviceNoise(seed, device)


def _check_seed(seed: int) -> None:
    if not 0 <= seed < 1 << 64:
        raise InputError(f"expected a seed in [0, 2^64), got {seed}")
