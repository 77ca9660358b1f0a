"""Records of an audit, as a candidate's process would write them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bench.auditing.attacking import sizes_of
from bench.auditing.process import Ended
from bench.auditing.records import AttackLine, Clean, Isolation, Loaded, Records, Rounds

SIZE = 2000


def loaded(**changes: Any) -> Loaded:
    """Return a candidate without any structure."""
    content: dict[str, Any] = {
        "name": "mine",
        "population": SIZE,
        "weights_sha256": {"weights": "a" * 64},
        "definition_sha256": "b" * 64,
        "unidentified": [],
        "notes": [],
        "architecture": "model:build",
        "parameters": 10,
        "randomized": False,
        "is_mix": False,
        "has_surrogate": False,
        "sigma": None,
        "capabilities": [],
        "adaptive_attacks": [],
        "declared": [],
        "fingerprint_varies": False,
        "device": "cpu",
        "seconds": 1.0,
    }
    return Loaded(**(content | changes))


def records(robust: float, clean: float = 0.8, drawn: int = 600, **rounds: Any) -> Records:
    """Return the records of an audit of a model with these accuracies.

    Args:
        robust: share of all images that stand, at those places where margins are large.
        drawn: images attacked, in rounds of 100.
    """
    generator = np.random.default_rng(0)
    right = np.arange(SIZE) < round(clean * SIZE)
    stands = np.arange(SIZE) < round(robust * SIZE)
    margins = stands + generator.standard_normal(SIZE)
    order = generator.permutation(SIZE)
    indices = order[:drawn].tolist()
    line = AttackLine(
        name="express-margin",
        attempted=drawn,
        broken=int((right & ~stands)[order[:drawn]].sum()),
        passes=100 * drawn,
        seconds=10.0,
        need="",
        parameters={"steps": 10, "targets": 0},
    )
    made = Rounds(
        run="digits-linf/mine@abc",
        sizes=sizes_of(drawn, 100),
        indices=indices,
        standing=[bool(stands[index]) for index in indices],
        ended="every claim is decided",
        seconds=10.0,
        left=0.0,
        left_high=0.002,
        attacks=[line],
        eight_bit=robust,
    )
    return Records(
        isolation=Isolation(
            network=False, network_note="no network", memory_bytes=None, memory_note="watched"
        ),
        stage="end",
        loaded=loaded(),
        clean=Clean(
            population=SIZE,
            indices=list(range(SIZE)),
            right=right.tolist(),
            margins=margins.tolist(),
            seconds=1.0,
            note="",
        ),
        rounds=made.model_copy(update=rounds),
        finished=True,
    )


def names(items: Sequence[Any]) -> dict[str, Any]:
    """Return items by their names."""
    return {each.name: each for each in items}


ENDED = Ended(code=0, killed_for="", last_line="", seconds=12.0, most_memory=2**30)
