"""Which seeds there are: those that key a stream of random draws."""

from __future__ import annotations

from numbers import Integral

from bench.errors import InputError

LARGEST_SEED = 2**64 - 1
"""Philox has a key of 64 bits, and torch's generators take no larger seed either."""


def check_seed(seed: object, name: str = "seed") -> None:
    """Refuse a seed that keys no stream of draws.

    Args:
        name: of the argument or option, for the message.

    Raises:
        InputError: it is no whole number from 0 to `LARGEST_SEED`.
    """
    if not isinstance(seed, Integral) or not 0 <= int(seed) <= LARGEST_SEED:
        raise InputError(
            f"{name}: expected a whole number from 0 to {LARGEST_SEED} (2^64 - 1), got {seed!r}"
        )
