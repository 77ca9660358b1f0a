"""A signal that stops a command decides its exit code, whatever other code makes of it."""

from __future__ import annotations

import os
import signal

import pytest

from bench.cli.stopping import exit_code, stoppable


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("replaced", [False, True])
def test_the_exit_code_is_the_signals(number: signal.Signals, replaced: bool) -> None:
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt) as raised, stoppable():
        try:
            os.kill(os.getpid(), number)
        except KeyboardInterrupt:
            if replaced:
                raise KeyboardInterrupt from None
            raise
    assert exit_code(raised.value) == 128 + number
    assert signal.getsignal(number) == before
