"""Gaussian noise that belongs to a draw of a sample, whatever batch the draw is in.

The noise of a draw depends on the seed, the sample's place in the data set and the number of the
draw, and on nothing else. Both sources rest on Philox (Salmon et al. 2011), which keeps no state
but a counter: on a processor NumPy's generator, which makes normal numbers about as fast as an
addition costs; on a GPU our own streams, which never leave it. They are two kinds of noise, so
that a run says which it had.
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

CHUNK = 100
"""Draws that the processor's source makes together."""
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
    """NumPy's Philox and its ziggurat, keyed by (seed, index), a counter for each chunk of draws.

    Args:
        seed: in [0, 2^64).

    Raises:
        InputError: the seed is out of its range.
    """

    name = "numpy-philox"

    def __init__(self, seed: int) -> None:
        _check_seed(seed)
        self.seed = seed
        self._last: tuple[tuple[int, int, int], np.ndarray[tuple[int, ...], np.dtype[np.float32]]]
        self._last = (-1, -1, -1), np.empty((0, 0), dtype=np.float32)

    def normal(self, pieces: Sequence[Piece], shape: Sequence[int]) -> Tensor:
        """See `Noise`."""
        numbers = math.prod(shape)
        noise = np.empty((sum(piece.count for piece in pieces), numbers), dtype=np.float32)
        filled = 0
        for piece in pieces:
            at, stop = piece.first, piece.first + piece.count
            while at < stop:
                chunk, offset = divmod(at, CHUNK)
                count = min(CHUNK - offset, stop - at)
                drawn = self._chunk(piece.index, chunk, numbers)
                noise[filled : filled + count] = drawn[offset : offset + count]
                filled += count
                at += count
        return torch.from_numpy(noise).view(-1, *shape)

    def _chunk(
        self, index: int, chunk: int, numbers: int
    ) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        """All draws of a chunk; the last one is kept, since a batch may end inside it."""
        place = (index, chunk, numbers)
        if self._last[0] != place:
            key = np.array([self.seed, index], dtype=np.uint64)
            stream = np.random.Philox(key=key, counter=[0, 0, 0, chunk])
            drawn = np.random.Generator(stream).standard_normal((CHUNK, numbers), dtype=np.float32)
            self._last = place, drawn
        return self._last[1]


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
