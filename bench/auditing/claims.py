"""What is claimed of a candidate: NAME=PERCENT, as papers print it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping

from pydantic import BaseModel, ConfigDict

from bench.errors import InputError

CLEAN = "clean"
ROBUST = {
    "autoattack": "robust accuracy under AutoAttack",
    "best-known": "best-known robust accuracy",
    "robust": "robust accuracy",
}
"""Names of claims of robust accuracy, and what they are called. Each is read as: at least so many
of the test images survive every attack in the threat model's ball. What AutoAttack leaves, or
another attack, is an upper bound of that."""
NAMES = (CLEAN, *ROBUST)

EXAMPLE = "clean=85.21"


class Claim(BaseModel):
    """One number that is claimed.

    Attributes:
        name: one of `NAMES`.
        accuracy: a fraction in [0, 1].
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    accuracy: float

    @property
    def is_clean(self) -> bool:
        """Whether it is of the accuracy without attack."""
        return self.name == CLEAN

    @property
    def title(self) -> str:
        """What the number is called."""
        return "clean accuracy" if self.is_clean else ROBUST[self.name]


def parse_claims(texts: Iterable[str] | Mapping[str, float | str]) -> tuple[Claim, ...]:
    """Return the claims that are written as NAME=PERCENT.

    Args:
        texts: such as `clean=85.21`; or a mapping from names to percentages.

    Raises:
        InputError: no claim, an unknown name, a name twice, or a number that is no percentage.
    """
    pairs = (
        [(str(name), str(value)) for name, value in texts.items()]
        if isinstance(texts, Mapping)
        else [_split(text) for text in texts]
    )
    if not pairs:
        raise InputError(f"--claim: expected what is claimed, such as {EXAMPLE}; got nothing")
    claims: dict[str, Claim] = {}
    for name, value in pairs:
        if name == "certified":
            raise InputError(
                "--claim: certified accuracy is proven, not attacked: measure it by `bench run "
                "--protocol certified`, and audit the attacked accuracy by robust=PERCENT"
            )
        if name not in NAMES:
            raise InputError(f"--claim: expected one of {', '.join(NAMES)}, got {name!r}")
        if name in claims:
            raise InputError(f"--claim: expected each name once, got {name} twice")
        claims[name] = Claim(name=name, accuracy=_fraction(name, value))
    return tuple(claims.values())


def _split(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise InputError(f"--claim: expected NAME=PERCENT such as {EXAMPLE}, got {text!r}")
    return name.strip(), value.strip()


def _fraction(name: str, text: str) -> float:
    """Return a percentage as a fraction.

    A number in (0, 1] is more likely a fraction by mistake than a percentage; only a percent sign
    makes it one.
    """
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*(%?)", text.strip())
    value = float(match[1]) if match else math.nan
    if match is None or not 0 <= value <= 100:
        raise InputError(
            f"--claim {name}: expected a percentage from 0 to 100 such as 38.72, got {text!r}"
        )
    if 0 < value <= 1 and not match[2]:
        raise InputError(
            f"--claim {name}: expected a percentage, got {text!r}, which looks like a fraction: "
            f"write {name}={100 * value:g} if it is one, or {name}={value:g}% if it is not"
        )
    return value / 100
