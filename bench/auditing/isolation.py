"""Keep a process apart from the network, and within its memory, before it imports foreign code.

Only the standard library is imported here: a new namespace for users can be entered by a process
with one thread only, and numerical libraries begin threads when they are imported.

A namespace is no wall against everything: the code still runs as the user, who can read and write
files. A container or another account keeps it from those.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
PR_SET_PDEATHSIG = 1
PR_SET_NO_NEW_PRIVS = 38

LARGEST_FILE = 8 << 30


@dataclass(frozen=True)
class Kept:
    """What this process is kept from.

    Attributes:
        network: whether it can still reach a network.
        memory_bytes: the limit of its memory that the system enforces; None: none.
    """

    network: bool
    network_note: str
    memory_bytes: int | None
    memory_note: str


def isolate(memory_bytes: int | None) -> Kept:
    """Give this process no network and a limit of memory, as far as the system allows it.

    Args:
        memory_bytes: the most that it may have; None: no limit.
    """
    _end_with_parent()
    network_note = _leave_network()
    limit, memory_note = _limit_memory(memory_bytes)
    return Kept(
        network=bool(network_note),
        network_note=network_note or "it ran in a network namespace of its own, without a network",
        memory_bytes=limit,
        memory_note=memory_note,
    )


def _end_with_parent() -> None:
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def _leave_network() -> str:
    """Enter a network namespace without a network; return why not, or "" if it worked.

    A namespace for users is entered with it: in it, code of a privileged user cannot go back.
    """
    if sys.platform != "linux":
        return f"it had the network: {sys.platform} has no network namespaces"
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.geteuid(), os.getegid()
    if libc.unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0:
        with contextlib.suppress(OSError):  # unmapped, files are still the user's own
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
            Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
        return ""
    reason = os.strerror(ctypes.get_errno())
    if libc.unshare(CLONE_NEWNET) == 0:
        return ""
    return f"it had the network: this system refuses namespaces ({reason})"


def _limit_memory(memory_bytes: int | None) -> tuple[int | None, str]:
    """Limit the data of this process; returns the limit and what is to be said of it."""
    try:
        import resource
    except ImportError:
        return None, "this system has no limits for processes"
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST_FILE, LARGEST_FILE))
    if memory_bytes is None:
        return None, "its memory was watched, not limited by the system"
    try:
        # Of data, not of addresses: torch maps far more addresses than it uses.
        resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    except (OSError, ValueError) as error:
        return None, f"its memory was watched; the system refuses a limit ({error})"
    return memory_bytes, "the system limited its data, and its resident memory was watched"
