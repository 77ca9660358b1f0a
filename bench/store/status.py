"""Where one run stands, whatever its state: from its manifest, its blocks and its events."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from bench.store.activity import Activity, activity_of, moment_of
from bench.store.events import Event, read_events
from bench.store.files import SUMMARY
from bench.store.run_folder import RunFolder
from bench.store.store import Store
from bench.store.summary import Summary
from bench.store.unfinished import Unfinished, Watch

SECONDS_OF_LIFE = 120.0
"""Whether a process of another machine still writes a run is told from lines that are so new."""

State = Literal["running", "complete", "failed", "interrupted"]


@dataclass(frozen=True)
class RunStatus:
    """Where a run stands; one of `summary` and `unfinished` is set.

    Attributes:
        state: "failed" if it said why it ended before it was complete.
        summary: of a complete run.
        unfinished: what the blocks of another say.
        activity: what its events say; None: it has none.
        quiet: seconds since its last event or block.
    """

    state: State
    summary: Summary | None
    unfinished: Unfinished | None
    activity: Activity | None
    quiet: float


class StatusWatch:
    """Follows one run; each block is read once.

    Args:
        store: where it is.
        reference: SUITE/CANDIDATE[@RUN].

    Raises:
        InputError: no such run.
    """

    def __init__(self, store: Store, reference: str) -> None:
        self._folder: RunFolder = store.newest(reference)
        self._watch = Watch(store)

    def look(self) -> RunStatus:
        """Return where the run stands now.

        Raises:
            InputError: its manifest or its summary is damaged.
        """
        now = datetime.now(UTC)
        events = read_events(self._folder.path)
        if self._folder.is_complete:
            last = moment_of(events[-1]) if events else now
            summary = self._folder.summary()
            quiet = max(0.0, (now - last).total_seconds())
            return RunStatus("complete", summary, None, activity_of(events, last), quiet)
        try:
            unfinished = self._watch.look(self._folder)
        except OSError:
            if not (self._folder.path / SUMMARY).is_file():
                raise
            return self.look()  # it was finished a moment ago
        newest = datetime.fromtimestamp(unfinished.newest, UTC)
        last = max([newest, *(moment_of(each) for each in events[-1:])])
        quiet = max(0.0, (now - last).total_seconds())
        state = _state(unfinished.is_written, events, quiet)
        activity = activity_of(events, max(now, last) if state == "running" else last)
        return RunStatus(state, None, unfinished, activity, quiet)


def _state(is_written: bool | None, events: list[Event], quiet: float) -> State:
    """Return the state of a run that is not complete.

    Args:
        is_written: whether a process of this machine holds its lock; None: unknown.
        events: of the run.
        quiet: seconds since the newest of them.
    """
    if is_written:
        return "running"
    if events and events[-1].get("event") == "run-fails":
        return "failed"
    begun = [each for each in events if each.get("event") in ("run-begins", "continues")]
    is_elsewhere = bool(begun) and begun[-1].get("host") != platform.node()
    if (is_written is None or is_elsewhere) and quiet < SECONDS_OF_LIFE:
        return "running"
    return "interrupted"
