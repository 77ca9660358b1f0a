"""Sequences of attacks that suites name instead of listing them.

They are fixed lists, not whatever is registered: a suite must ask for the same attacks on every
machine. Whoever adds an attack here raises the version of the suites that use the sequence.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

SEQUENCES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "autoattack": ("apgd-ce", "apgd-t", "fab-t", "square"),
        "defence-aware": (
            "apgd-alpha-ce",
            "apgd-alpha-t",
            "apgd-mix-margin",
            "apgd-accurate",
            "apgd-robust",
            "apgd-other-alpha",
            "apgd-straight-through",
            "apgd-expectation",
        ),
    }
)
"""By name: standard AutoAttack's attacks, and those that know how a candidate is built. A run takes
those of the latter that apply to its candidate."""
