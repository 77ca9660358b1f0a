"""Memory that passes through a network give back is kept for the next pass."""

from __future__ import annotations

import contextlib
import ctypes
import sys

_TRIM_THRESHOLD, _MOST_MAPPED = -1, -4
"""Parameters of glibc's `mallopt`, as in <malloc.h>."""
KEPT_BYTES = 1 << 30


def keep_freed_memory() -> None:
    """Let the process keep up to a gigabyte that is free, where its allocator is glibc's.

    By default glibc hands large blocks back to the system when they are freed, and the next pass
    has to fault every page in again. On small networks that costs up to a third of the time. Other
    allocators are left as they are; calling this again changes nothing.
    """
    if not sys.platform.startswith("linux"):
        return
    with contextlib.suppress(OSError, AttributeError):  # another C library has no mallopt
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MOST_MAPPED, 0)
        mallopt(_TRIM_THRESHOLD, KEPT_BYTES)
