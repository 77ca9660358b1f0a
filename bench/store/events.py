"""What happens in a run, one JSON object a line, for those who follow it.

Nothing reads a result from it. A line is written at once, so that a killed process leaves at most
one that is torn; readers leave it out. Two files of limited size are kept, the current one and
the one before it.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

EVENTS, EARLIER_EVENTS = "events.jsonl", "events-earlier.jsonl"
MOST_BYTES = 4 << 20
"""A file that is larger becomes the earlier one; a line has some 150 bytes."""

Event = dict[str, Any]


class EventLog:
    """The event files of a run, for the process that writes the run.

    A line that cannot be written, for example on a full disk, is left out: following a run is no
    reason to end it.

    Args:
        folder: of the run; it exists.
        head: returns what the first line of a further file says: what readers need of the lines
            that will be gone.
        most_bytes: size at which a further file begins.
    """

    def __init__(
        self,
        folder: Path,
        head: Callable[[], Mapping[str, Any]] = dict,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self._folder = folder
        self._head = head
        self._most_bytes = most_bytes

    def write(self, event: str, /, **facts: Any) -> None:
        """Append a line: the time, what happened, and facts about it."""
        with contextlib.suppress(OSError):
            path = self._folder / EVENTS
            if path.is_file() and path.stat().st_size >= self._most_bytes:
                path.replace(self._folder / EARLIER_EVENTS)
                _append(path, "continues", self._head())
            _append(path, event, facts)


def _append(path: Path, event: str, facts: Mapping[str, Any]) -> None:
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    line = json.dumps({"time": now, "event": event, **facts}, default=str).encode() + b"\n"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        size = os.fstat(descriptor).st_size
        if size:
            os.lseek(descriptor, size - 1, os.SEEK_SET)
            if os.read(descriptor, 1) != b"\n":
                line = b"\n" + line  # the last process was killed within a line
        os.write(descriptor, line)
    finally:
        os.close(descriptor)


def read_events(folder: Path) -> list[Event]:
    """Return the events of a run, oldest first; torn and strange lines are left out.

    Args:
        folder: of the run; without event files, as of earlier releases, there are none.
    """
    found: list[Event] = []
    for name in (EARLIER_EVENTS, EVENTS):
        try:
            lines = (folder / name).read_bytes().split(b"\n")
        except OSError:
            continue
        for line in lines:
            with contextlib.suppress(ValueError):
                event = json.loads(line)
                if isinstance(event, dict) and is_moment(event.get("time")):
                    found.append(event)
    return found


def is_moment(text: object) -> bool:
    """Return whether something is an ISO 8601 time with a time zone."""
    try:
        return isinstance(text, str) and datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False
