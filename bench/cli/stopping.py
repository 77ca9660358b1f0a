"""Signals that stop a command: it ends in order, and what is finished stays."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

GOES_ON = "the same command goes on"
GOES_ON_OTHERWISE = {"train": "the same command with --resume goes on"}
"""By command; what is not here goes on without another option."""


class Terminated(KeyboardInterrupt):
    """SIGTERM came. Foreign code lets it pass, as it does Ctrl-C."""


@contextmanager
def stoppable() -> Iterator[None]:
    """Raise `Terminated` on SIGTERM and KeyboardInterrupt on Ctrl-C, once.

    A second signal ends the process at once, without waiting for anything.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread gets signals
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    came = signal.SIGINT

    def stop(number: int, _: FrameType | None) -> None:
        nonlocal came
        came = signal.Signals(number)
        for each in before:
            signal.signal(each, signal.SIG_DFL)
        raise Terminated if came == signal.SIGTERM else KeyboardInterrupt

    for number in before:
        signal.signal(number, stop)
    try:
        yield
    except KeyboardInterrupt as error:
        # Ray, interrupted while it waits, raises a KeyboardInterrupt of its own.
        if came == signal.SIGTERM and not isinstance(error, Terminated):
            raise Terminated from error
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stopped(command: str | None) -> str:
    """Say that a command was stopped, and how to go on with it."""
    return f"stopped; {GOES_ON_OTHERWISE.get(command or '', GOES_ON)}"


def exit_code(stop: KeyboardInterrupt) -> int:
    """Return the exit code of a stopped command: 128 and the signal's number, as in shells."""
    return 128 + (signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT)
