"""The measured power of a suite of attacks: which planted weaknesses it found."""

from __future__ import annotations

from typing import Literal

from bench.store.manifest import Record

PlantOutcome = Literal["found", "partly", "missed", "untested"]


class PlantedWeakness(Record):
    """A weakness planted in the candidate, and what the attacks made of it."""

    name: str
    effect: str
    """What was planted, in words."""
    outcome: PlantOutcome
    """`found`: hardly any sample that can be broken survived, or it was noticed otherwise;
    `partly`: at least half of them broke; `missed`: fewer; `untested`: too few samples can be
    broken, or nothing could be planted."""
    found_by: Literal["attacks", "escalation", "flags", ""] = ""
    """The first of these that noticed it; empty where nothing did."""
    breakable: int
    """Samples of which an adversarial image is known that fools the network with the plant."""
    broken: int
    """Those of them that the attacks broke."""
    escalated: str = ""
    """Why the attacks handed over to longer ones; empty: they did not."""
    flags: list[str] = []
    """Flags that name the weakness, and that the candidate itself does not raise."""
    reason: str = ""
    """Why it is untested."""


class AttackPower(Record):
    """The result of planting weaknesses in a candidate and attacking it again."""

    attacks: str
    """The suite of attacks on trial: the name of its engine."""
    samples: int
    """Samples attacked, all right without attack."""
    broken: int
    """Those that the attacks broke in the candidate itself, without a plant."""
    plants: list[PlantedWeakness]
    passes: float = 0.0
    """What it took, a gradient's pass counted once."""
    reason: str = ""
    """Why nothing was planted; empty: something was."""
