"""SIGTERM is answered by this process's own handler, also while Ray has put its own there."""

from __future__ import annotations

import os
import signal
import sys

import pytest

from bench.cli.stopping import Terminated, stoppable
from bench.executors.ray_cluster import _own_signals


def _connect() -> None:
    """Be terminated while Ray starts, as `ray.init` answers that."""
    with stoppable(), _own_signals():
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(number))
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_that_comes_while_ray_starts() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Terminated):
        _connect()
    assert signal.getsignal(signal.SIGTERM) == before
