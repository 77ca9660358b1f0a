"""Gaussian noise that belongs to a draw of a sample, whatever batch or machine makes it.

The noise of a draw depends on the seed, the sample's place in the data set and the number of the
draw, and on nothing else. Random words come from Philox4x64-10 (Salmon et al., "Parallel random
numbers: as easy as 1, 2, 3", 2011), which keeps no state but a counter; the transform of Box and
Muller makes them normal. A CPU takes the words from NumPy's Philox; other devices compute the same
words with torch, so that the noise never leaves them. Words are equal everywhere, bit for bit; the
last digits of logarithms and cosines may differ between machines, as those of the network do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bench.errors import InputError

_NUMBERS_A_COUNTER = 8
"""A Philox of four 64-bit words; a normal number takes 32 bits."""
_MULTIPLIERS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
_KEY_STEPS = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)
_ROUNDS = 10
_LOW = 0xFFFFFFFF


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


class Noise:
    """Standard normal numbers, keyed by (seed, index) and counted by draw.

    Args:
        seed: in [0, 2^64).
        device: where the numbers are made.

    Raises:
        InputError: the seed is out of its range.
    """

    name = "philox-box-muller"

    def __init__(self, seed: int, device: torch.device | str = "cpu") -> None:
        if not 0 <= seed < 1 << 64:
            raise InputError(f"expected a seed in [0, 2^64), got {seed}")
        self.seed = seed
        self.device = torch.device(device)

    def normal(self, pieces: Sequence[Piece], shape: Sequence[int]) -> Tensor:
        """Return the noise of pieces of work.

        Args:
            pieces: at least one.
            shape: of one draw.

        Returns:
            (sum of counts, *shape) float32, in the order of the pieces; the caller may change it.
        """
        numbers = math.prod(shape)
        counters = -(-numbers // _NUMBERS_A_COUNTER)
        words = numpy_words if self.device.type == "cpu" else torch_words
        normal = _box_muller(words(self.seed, pieces, counters, self.device).view(torch.int32))
        return normal[:, :numbers].reshape(-1, *shape)


def numpy_words(
    seed: int, pieces: Sequence[Piece], counters: int, device: torch.device | str
) -> Tensor:
    """Return the random words (n, 4 counters) int64 of n draws, made by NumPy on the CPU."""
    words = np.empty((sum(piece.count for piece in pieces), counters * 4), dtype=np.uint64)
    row = 0
    for piece in pieces:
        # NumPy's Philox steps to the next counter before it makes its first words.
        first = np.array([piece.first * counters, 0, 0, 1], dtype=np.uint64)
        key = np.array([seed, piece.index], dtype=np.uint64)
        rows = words[row : row + piece.count]
        rows.ravel()[:] = np.random.Philox(counter=first, key=key).random_raw(rows.size)
        row += piece.count
    return torch.from_numpy(words.view(np.int64)).to(device)


def torch_words(
    seed: int, pieces: Sequence[Piece], counters: int, device: torch.device | str
) -> Tensor:
    """Return the words of `numpy_words`, made on the device.

    torch has no unsigned 64-bit arithmetic, but two's complement adds and multiplies to the same
    bits; only the high half of a product needs care.
    """
    draws = torch.cat([torch.arange(each.first, each.first + each.count) for each in pieces])
    counts = torch.tensor([piece.count for piece in pieces])
    indices = torch.tensor([piece.index for piece in pieces]).repeat_interleave(counts)
    # One copy to the device: each makes the host wait. Constants are filled in there.
    draws, indices = torch.stack((draws, indices)).to(device).unsqueeze(2)
    c0 = draws * counters + torch.arange(1, counters + 1, device=device)
    c1, c2, c3 = (_constant(word, device) for word in (0, 0, 1))
    k0, k1 = _constant(_signed(seed), device), indices
    for number in range(_ROUNDS):
        if number:
            k0, k1 = k0 + _signed(_KEY_STEPS[0]), k1 + _signed(_KEY_STEPS[1])
        first, second = _MULTIPLIERS
        c0, c1, c2, c3 = (
            _high_product(c2, second) ^ c1 ^ k0,
            c2 * _signed(second),
            _high_product(c0, first) ^ c3 ^ k1,
            c0 * _signed(first),
        )
    return torch.stack([c0, c1, c2, c3], dim=2).flatten(1)


def _constant(word: int, device: torch.device | str) -> Tensor:
    return torch.full((1, 1), word, dtype=torch.int64, device=device)


def _high_product(words: Tensor, factor: int) -> Tensor:
    """Return the upper 64 bits of the 128-bit products of words, taken as unsigned, and a factor.

    In base 2^32, as by hand; no sum of the partial products exceeds 64 bits.
    """
    low, high = words & _LOW, _upper(words)
    factor_low, factor_high = factor & _LOW, factor >> 32
    middle = high * factor_low + _upper(low * factor_low)
    other = low * factor_high + (middle & _LOW)
    return high * factor_high + _upper(middle) + _upper(other)


def _upper(words: Tensor) -> Tensor:
    """Return the upper 32 bits of words, taken as unsigned."""
    return (words >> 32) & _LOW


def _signed(word: int) -> int:
    """Return the number whose two's complement is an unsigned 64-bit word."""
    return word - (1 << 64) if word >> 63 else word


def _box_muller(words: Tensor) -> Tensor:
    """Return standard normal numbers (n, 2 m) float32 from random words (n, 2 m) int32.

    G. E. P. Box and M. E. Muller, "A note on the generation of random normal deviates", 1958.
    """
    rows, half = len(words), words.shape[1] // 2
    uniform = words.view(rows, 2, half).transpose(0, 1).to(torch.float32, copy=True).contiguous()
    # |int32| / 2^31 lies in [0, 1], as fine near 0, where lengths are large, as the words are.
    length = uniform[0].abs_().mul_(2**-31).clamp_min_(2**-32).log_().mul_(-2).sqrt_()
    angle = uniform[1].mul_(math.pi * 2**-31)
    normal = torch.empty(rows, 2, half, device=words.device)
    torch.mul(length, angle.cos(), out=normal[:, 0])
    torch.mul(length, angle.sin_(), out=normal[:, 1])
    return normal.view(rows, -1)
