"""The code of attacks that others wrote, as a part of what decides a run's result."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.metadata import packages_distributions, version
from typing import Any

from bench.attacks import ATTACKS
from bench.attacks.registry import OWN_PACKAGE, place_of
from bench.candidates.object_digest import object_digest


def with_code(attacks: Iterable[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], list[str]]:
    """Add a digest of its code to each attack that is not this package's own.

    The own ones have none: their code changes with the package alone.

    Args:
        attacks: name and parameters of each, as a manifest has them; names of steps that are no
            registered attacks pass.

    Returns:
        the attacks, and what of their code cannot be read, a line each.
    """
    described, unread = [], []
    for attack in map(dict, attacks):
        name = str(attack.get("name", ""))
        module, _ = place_of(ATTACKS[name]) if name in ATTACKS else (OWN_PACKAGE, "")
        if module.partition(".")[0] != OWN_PACKAGE:
            found = object_digest(ATTACKS[name].build)
            attack["code_sha256"] = found.sha256
            if packages := _packages(module):  # whose code is digested by its name alone
                attack["package"] = packages
            unread += [f"attack {name}: {each}" for each in found.undigested]
        described.append(attack)
    return described, unread


def _packages(module: str) -> str:
    """Return the installed packages that bring a module, with their versions; "": it is a file."""
    names = packages_distributions().get(module.partition(".")[0], [])
    return ", ".join(f"{name} {version(name)}" for name in sorted(set(names)))
