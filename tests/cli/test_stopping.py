"""A signal that stops a command decides its exit code, whatever other code makes of it."""

from __future__ import annotations

import os
import signal

import pytest

from bench.cli.stopping import exit_code, stoppable


def _work(number: signal.Signals, replaces: bool) -> None:
    """Be stopped by a signal, as code that may raise another interruption in its place."""
    with stoppable():
        try:
            os.kill(os.getpid(), number)
        except KeyboardInterrupt:
            if replaces:
                raise KeyboardInterrupt from None
            raise


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("replaces", [False, True])
def test_the_exit_code_is_the_signals(number: signal.Signals, replaces: bool) -> None:
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt) as raised:
        _work(number, replaces)
    assert exit_code(raised.value) == 128 + number
    assert signal.getsignal(number) == before
