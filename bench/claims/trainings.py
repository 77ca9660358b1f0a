"""How several trainings of one network are named, each with a record of its own."""

from __future__ import annotations

import re

_ENDING = re.compile(r"-seed\d+$")


def training_name(candidate: str, seed: int) -> str:
    """Return the name under which the training with a seed is recorded."""
    return f"{candidate}-seed{seed}"


def network_name(training: str) -> str:
    """Return which network a record's candidate is a training of: itself, if it names no seed."""
    return _ENDING.sub("", training)
