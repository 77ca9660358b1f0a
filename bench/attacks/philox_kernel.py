"""Philox4x32-10 as one kernel for a GPU; `draws.py` says what it computes, and falls back on torch.

Imports Triton, which comes with PyTorch's builds for CUDA and with no others.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_COUNTERS_A_PROGRAM = 128


@triton.jit(do_not_specialize=("count", "total"))  # type: ignore[untyped-decorator, unused-ignore]
def philox_units(  # type: ignore[no-untyped-def]
    words,
    events,
    units,
    count,
    total,
    SIZE: tl.constexpr,
):
    """Write `count` random numbers for each item; `total` counters make four each.

    The variables are those of `draws.philox`. Words are kept in 64 bits, so that a product is
    exact; its halves are the next words.
    """
    place = tl.program_id(0).to(tl.int64) * SIZE + tl.arange(0, SIZE)
    is_asked = place < total
    blocks = (count + 3) // 4
    item = place // blocks
    block = place % blocks
    c0 = block.to(tl.uint64)
    c1 = tl.load(events + item, mask=is_asked, other=0).to(tl.uint64)
    k0 = tl.load(words + 4 * item, mask=is_asked, other=0).to(tl.uint64)
    k1 = tl.load(words + 4 * item + 1, mask=is_asked, other=0).to(tl.uint64)
    c2 = tl.load(words + 4 * item + 2, mask=is_asked, other=0).to(tl.uint64)
    c3 = tl.load(words + 4 * item + 3, mask=is_asked, other=0).to(tl.uint64)
    for _ in tl.static_range(10):
        first = c0 * 0xD2511F53
        second = c2 * 0xCD9E8D57
        c0 = ((second >> 32) ^ c1 ^ k0) & 0xFFFFFFFF
        c1 = second & 0xFFFFFFFF
        c2 = ((first >> 32) ^ c3 ^ k1) & 0xFFFFFFFF
        c3 = first & 0xFFFFFFFF
        k0 = (k0 + 0x9E3779B9) & 0xFFFFFFFF
        k1 = (k1 + 0xBB67AE85) & 0xFFFFFFFF
    # The 24 highest bits as a number in [0, 1), which float32 holds exactly.
    column = 4 * block
    at = units + item * count + column
    tl.store(at, (c0 >> 8).to(tl.float32) * 2.0**-24, mask=is_asked)
    tl.store(at + 1, (c1 >> 8).to(tl.float32) * 2.0**-24, mask=is_asked & (column + 1 < count))
    tl.store(at + 2, (c2 >> 8).to(tl.float32) * 2.0**-24, mask=is_asked & (column + 2 < count))
    tl.store(at + 3, (c3 >> 8).to(tl.float32) * 2.0**-24, mask=is_asked & (column + 3 < count))


def units(words: Tensor, events: Tensor, count: int) -> Tensor:
    """Return uniform numbers in [0, 1), (N, count) float32, multiples of 2^-24.

    Args:
        words: (N, 4) int64 in [0, 2^32), the identities of the items' streams.
        events: (N,) int64, which draw of its stream each item takes.
        count: how many numbers an item takes.
    """
    words, events = words.contiguous(), events.contiguous()
    made = torch.empty(len(words), count, device=words.device)
    total = len(words) * ((count + 3) // 4)
    grid = (triton.cdiv(total, _COUNTERS_A_PROGRAM),)
    if total:
        philox_units[grid](words, events, made, count, total, SIZE=_COUNTERS_A_PROGRAM)
    return made
