"""A signal that stops a command decides its exit code, whatever other code makes of it."""

from __future__ import annotations

import os
import signal

import pytest
from click.testing import CliRunner

from bench.cli import main
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


@pytest.mark.parametrize(
    ("command", "function", "text"),
    [
        (
            ["train", "--recipe", "standard", "--preset", "digits-standard"],
            "bench.training.run",
            "stopped; the same command with --resume goes on",
        ),
        (["list", "suites"], "bench.cli.list._suites", "stopped; the same command goes on"),
    ],
)
def test_a_stopped_command_says_how_it_goes_on(
    command: list[str], function: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(function, stop)
    result = CliRunner().invoke(main, command)
    assert (result.exit_code, result.output) == (130, f"{text}\n")
