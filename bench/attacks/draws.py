"""Random numbers that belong to a work item, whatever batch the item is in.

Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") turns a 128-bit
counter and a 64-bit key into 128 random bits and keeps no state. Philox keyed by the seed turns
(data-set index, attack, restart, target) into the 128-bit identity of a stream; Philox keyed by
half of that identity, with the other half in the counter, makes the stream. A draw is named by its
event, a number that the attack counts, such as the query it is for. So items at different
iterations draw in one vectorised call, and none of them can notice the others.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import torch
from torch import Tensor

from bench.errors import InputError, briefly
from bench.memory.transfer import send

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_MASK = 0xFFFFFFFF
_UNIFORM_BITS = 24
_BLOCKS_AT_ONCE = 1 << 13
"""Small enough for the ten rounds' intermediate arrays to stay in a core's cache."""


class Draws(Protocol):
    """The source of an attack's random numbers, one row for each item.

    Implementations are dataclasses of tensors with a leading batch dimension, so that
    `bench.attacks.state` can gather and scatter their rows.
    """

    def uniform(self, events: Tensor, count: int, dtype: torch.dtype) -> Tensor:
        """Return uniform numbers in [0, 1).

        Args:
            events: (N,) int64, which draw of its stream each item takes.
            count: how many numbers an item takes.
            dtype: of the result.

        Returns:
            (N, count).
        """

    def normal(self, events: Tensor, count: int, dtype: torch.dtype) -> Tensor:
        """Return standard normal numbers; arguments as for `uniform`."""


@dataclass(frozen=True)
class KeyedDraws:
    """Streams of Philox4x32-10.

    Attributes:
        words: (N, 4) int64 in [0, 2^32), the identity of each item's stream.
    """

    words: Tensor

    def to(self, device: torch.device) -> KeyedDraws:
        """Return the same streams, whose numbers are drawn on a device."""
        return KeyedDraws(send(self.words, device))

    def uniform(self, events: Tensor, count: int, dtype: torch.dtype) -> Tensor:
        """See `Draws`; the numbers are multiples of 2^-24, the same in every dtype."""
        if events.device.type == "cuda" and not kernel_problem(events.device):
            return _units_by_kernel(self.words, events, count).to(dtype)
        return _unit(self._bits(events, count), dtype)

    def normal(self, events: Tensor, count: int, dtype: torch.dtype) -> Tensor:
        """See `Draws`; the numbers come from Box and Muller's transform."""
        half = (count + 1) // 2
        unit = self.uniform(events, 2 * half, dtype)
        # 1 - u is in (0, 1], where the logarithm is finite.
        radius = (-2 * torch.log1p(-unit[:, :half])).sqrt_()
        angle = unit[:, half:].mul_(2 * math.pi)
        return torch.cat((radius * angle.cos(), radius * angle.sin()), dim=1)[:, :count]

    def _bits(self, events: Tensor, count: int) -> Tensor:
        """Return (N, count) int64 in [0, 2^32)."""
        blocks = (count + 3) // 4
        items = max(1, _BLOCKS_AT_ONCE // blocks) if events.device.type == "cpu" else len(events)
        parts = [
            _stream(words, at, blocks)
            for words, at in zip(
                torch.split(self.words, items), torch.split(events, items), strict=True
            )
        ]
        bits = parts[0] if len(parts) == 1 else torch.cat(parts)
        return bits[:, :count]


@dataclass(frozen=True)
class GivenDraws:
    """Numbers that were drawn elsewhere, for comparison with another implementation.

    Attributes:
        numbers: (N, events, count); an item's draw for event e is the start of numbers[:, e].
    """

    numbers: Tensor

    def uniform(self, events: Tensor, count: int, dtype: torch.dtype) -> Tensor:
        """See `Draws`: the given numbers, as they are."""
        if count > self.numbers.shape[2]:
            raise InputError(
                f"expected at least {count} given numbers for an event, got {self.numbers.shape[2]}"
            )
        rows = torch.arange(len(events), device=events.device)
        return self.numbers[rows, events, :count].to(dtype)

    def normal(self, events: Tensor, count: int, dtype: torch.dtype) -> Tensor:
        """See `Draws`: the given numbers, as they are."""
        return self.uniform(events, count, dtype)


def keyed_draws(
    seed: int,
    indices: Tensor,
    attack: str,
    *,
    restarts: Tensor | int = 0,
    targets: Tensor | int = 0,
) -> KeyedDraws:
    """Return the streams of work items.

    Args:
        seed: of the run, in [0, 2^64).
        indices: (N,) int64 in [0, 2^32), the samples' places in the data set.
        attack: name of the attack.
        restarts: (N,) in [0, 2^32), or one number for all: which restart.
        targets: (N,) in [0, 2^32), or one number for all: rank of the target class, 0 for none.

    Raises:
        InputError: the seed is out of its range.
    """
    if not 0 <= seed < 1 << 64:
        raise InputError(f"expected a seed in [0, 2^64), got {seed}")
    attack_word = zlib.crc32(attack.encode())
    fields = (indices, attack_word, restarts, targets)
    counter = [
        field.to(indices).expand(len(indices))
        if isinstance(field, Tensor)
        else torch.full_like(indices, field)
        for field in fields
    ]
    words = philox((counter[0], counter[1], counter[2], counter[3]), (seed & _MASK, seed >> 32))
    return KeyedDraws(torch.stack(words, dim=1))


@cache
def kernel_problem(device: torch.device) -> str:
    """Return why a GPU's random numbers take many launches instead of one; empty if they take one.

    The kernel is used where it gives the same numbers as the operations of torch, bit for bit.
    """
    words = torch.arange(8, device=device).view(2, 4) * 0x1FACE + 0xFFFFFF00
    events = torch.tensor([0, 5000], device=device)
    try:
        found = _units_by_kernel(words, events, 11)
        expected = _unit(_stream(words, events, 3), torch.float32)[:, :11]
        return "" if torch.equal(found, expected) else "its numbers differ"
    except Exception as error:  # compilers and drivers fail in many ways
        return briefly(error)


def _units_by_kernel(words: Tensor, events: Tensor, count: int) -> Tensor:
    """Return uniform numbers (N, count) float32, from one launch."""
    from bench.attacks import philox_kernel  # Triton is not everywhere

    return philox_kernel.units(words, events, count)


def philox(counter: tuple[Any, Any, Any, Any], key: tuple[Any, Any]) -> tuple[Any, Any, Any, Any]:
    """Apply Philox4x32-10.

    Args:
        counter: four words in [0, 2^32): int64 tensors, or int64 arrays of NumPy, that broadcast.
        key: two words in [0, 2^32), likewise, or Python integers.

    Returns:
        Four words in [0, 2^32), of the kind that came. 64-bit products wrap around, and a shifted,
        masked two's complement has the bits of the unsigned product.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for round_number in range(_ROUNDS):
        if round_number:
            k0 = (k0 + _KEY_STEPS[0]) & _MASK
            k1 = (k1 + _KEY_STEPS[1]) & _MASK
        first = c0 * _MULTIPLIERS[0]
        second = c2 * _MULTIPLIERS[1]
        c0 = ((second >> 32) ^ c1 ^ k0) & _MASK
        c1 = second & _MASK
        c2 = ((first >> 32) ^ c3 ^ k1) & _MASK
        c3 = first & _MASK
    return c0, c1, c2, c3


def _stream(words: Tensor, events: Tensor, blocks: int) -> Tensor:
    """Return (N, 4 blocks) random words of streams `words` (N, 4) at `events` (N,)."""
    block = torch.arange(blocks, device=words.device).unsqueeze(0)
    columns: list[Any] = [column.unsqueeze(1) for column in (events, *words.unbind(dim=1))]
    if words.device.type != "cpu":
        at, k0, k1, c2, c3 = columns
        return torch.stack(philox((block, at, c2, c3), (k0, k1)), dim=2).flatten(1)
    # The same operations on the same memory, but with NumPy's smaller cost for each call: a query
    # of Square draws a few numbers an item, and would cost more in calls than in work.
    at, k0, k1, c2, c3 = (column.numpy() for column in columns)
    bits = philox((block.numpy(), at, c2, c3), (k0, k1))
    return torch.stack([torch.from_numpy(word) for word in bits], dim=2).flatten(1)


def _unit(bits: Tensor, dtype: torch.dtype) -> Tensor:
    """Return words as numbers in [0, 1)."""
    return (bits >> (32 - _UNIFORM_BITS)).to(dtype).mul_(2.0**-_UNIFORM_BITS)
