"""Run the candidate's process, watch its memory and its time, and end it when it exceeds them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

LOG = "process.log"
BETWEEN_LOOKS = 0.2
SHOWN_OF_LOG = 300


@dataclass(frozen=True)
class Ended:
    """How the process ended.

    Attributes:
        code: its exit code; negative: the signal that ended it.
        killed_for: why it was ended from here; empty: it was not.
        last_line: of what it wrote to standard output or standard error.
        seconds: how long it ran.
        most_memory: most resident bytes that were seen, of it and its descendants.
    """

    code: int
    killed_for: str
    last_line: str
    seconds: float
    most_memory: int


def run_apart(
    order: Path,
    out: Path,
    seconds: float,
    memory_bytes: int | None,
    tell: Callable[[], None] = lambda: None,
) -> Ended:
    """Run `bench.auditing.worker` on an order, in a process group of its own.

    Args:
        order: file with the order.
        out: folder for what the process prints.
        seconds: after which it is killed.
        memory_bytes: resident memory above which it is killed; None: it is not watched.
        tell: called again and again while it runs.
    """
    start, most, reason = time.monotonic(), 0, ""
    log = out / LOG
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "bench.auditing.worker", str(order)],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            while process.poll() is None:
                time.sleep(BETWEEN_LOOKS)
                tell()
                most = max(most, resident(process.pid))
                if time.monotonic() - start > seconds:
                    reason = "time"
                elif memory_bytes is not None and most > memory_bytes:
                    reason = "memory"
                if reason:
                    break
        finally:
            _end(process)
    return Ended(
        code=process.returncode,
        killed_for=reason,
        last_line=_last_line(log),
        seconds=time.monotonic() - start,
        most_memory=most,
    )


def resident(pid: int) -> int:
    """Return the resident bytes of a process and its descendants; 0 where the system hides them."""
    total, waiting = 0, [pid]
    while waiting:
        each = Path(f"/proc/{waiting.pop()}")
        with contextlib.suppress(OSError, ValueError, IndexError):
            pages = int((each / "statm").read_text().split()[1])
            total += pages * os.sysconf("SC_PAGE_SIZE")
            for task in (each / "task").iterdir():
                waiting += [int(child) for child in (task / "children").read_text().split()]
    return total


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and its group, and wait for it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    if process.poll() is None:
        process.kill()
    process.wait()


def _last_line(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(file.tell() - 8192, 0))
        lines = file.read().decode("utf-8", errors="replace").splitlines()
    printable = ("".join(c for c in line if c.isprintable()).strip() for line in lines)
    found = [line for line in printable if line]
    return found[-1][:SHOWN_OF_LOG] if found else ""
