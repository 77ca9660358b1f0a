"""The attacks that are known by name, as suites write them; a new one is one file with one call.

`standard.py` and `adaptive.py` register the package's own. Other packages call
`register_attack` themselves, or offer a `Definition` as an entry point of the group
`bench.attacks`, whose name is the attack's:

    def build(request: AttackRequest) -> AttackPlan:
        return request.plan(MyAttack(request.norm, request.eps, request.parameters["steps"]))

    register_attack("my-attack", Definition("what it does", {"steps": 50}, build))

A suite then lists `my-attack` among a protocol's attacks.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from types import MappingProxyType
from typing import Any, Literal

from bench import plugins
from bench.attacks.attack import Attack, Passes
from bench.attacks.distances import Norm
from bench.errors import InputError

ENTRY_POINT_GROUP = "bench.attacks"
OWN_PACKAGE = "bench"

STANDARD = ("apgd-ce", "apgd-t", "fab-t", "square")
"""Standard AutoAttack's sequence (Croce and Hein 2020, arXiv 2003.01690)."""

View = Literal["logits", "uncompiled", "mix", "straight-through", "expectation"]
"""What an attack is shown of a candidate: its logits; its logits by passes that are not compiled,
through which it can go back more than once; a mix with its parts; its logits with the gradient of a
differentiable stand-in; the mean of several draws of its logits."""

Need = Literal["mix", "mixing network", "stopped gradient", "randomness"]
"""What a candidate must have for an attack to apply."""

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
_RESERVED = ("clean", "eps-curve", "fmn-smallest", "neighbours", "until-converged", "witnesses")
"""Names under which runs record steps that are not attacks."""


@dataclass(frozen=True)
class AttackPlan:
    """An attack and how many work items it makes of a sample.

    Attributes:
        name: as in suites; a part of the random streams' key.
        attack: what steps the items.
        targets: how many of the likeliest wrong classes are aimed for; 0: untargeted.
        restarts: for each target.
        parameters: what was used, for the record.
        note: what differs from what was asked for, and why; empty if nothing does.
        view: what the attack is shown of the candidate.
        first_target: the place of the first class aimed for among the wrong classes, from 0.
    """

    name: str
    attack: Attack[Any]
    targets: int
    restarts: int
    parameters: Mapping[str, Any]
    note: str
    view: View = "logits"
    first_target: int = 0

    @property
    def needs_gradient(self) -> bool:
        """Whether the model must be differentiable."""
        return self.attack.passes.forward_backward > 0

    @property
    def items(self) -> int:
        """Work items of a sample that survives."""
        return max(self.targets, 1) * self.restarts

    @property
    def most_passes(self) -> Passes:
        """Passes that a sample takes that survives."""
        steps = self.items * self.attack.steps
        one = self.attack.passes
        return Passes(steps * one.forward, steps * one.forward_backward)

    def reference_passes(self, standing: Sequence[int], queries: int = 0) -> Passes:
        """Return the passes of pyautoattack for the same work; see `Attack.reference_passes`."""
        return self.attack.reference_passes(standing, self.targets > 0, queries)


@dataclass(frozen=True)
class AttackRequest:
    """What a suite asks for.

    Attributes:
        name: of the attack.
        norm: of the threat model.
        eps: its radius, in the [0, 1] pixel scale.
        classes: of the data set, at least 2.
        parameters: a value for each of the attack's defaults.
    """

    name: str
    norm: Norm
    eps: float
    classes: int
    parameters: Mapping[str, Any]

    def plan(
        self, attack: Attack[Any], *, loss: str = "", note: str = "", view: View = "logits"
    ) -> AttackPlan:
        """Return the plan that answers the request.

        The parameter `targets` becomes the number of targets, at most one for each wrong class;
        without it the attack is untargeted. The parameter `restarts` is 1 where there is none.

        Args:
            attack: what steps the items.
            loss: the name of the loss that it uses, for the record.
            note: what differs from what was asked for.
            view: what the attack is shown of the candidate.
        """
        asked = self.parameters.get("targets", 0)
        targets = min(asked, self.classes - 1)
        if targets < asked:
            fewer = f"{targets} targets for {asked}: {self.classes} classes"
            note = f"{note}; {fewer}" if note else fewer
        record: dict[str, Any] = dict(self.parameters)
        if loss:
            record["loss"] = loss
        if targets:
            record["targets"] = targets
        restarts = self.parameters.get("restarts", 1)
        return AttackPlan(
            self.name, attack, targets, restarts, MappingProxyType(record), note, view
        )


@dataclass(frozen=True)
class Definition:
    """What is known of an attack before it is used.

    Attributes:
        description: one line.
        defaults: parameters that a suite may change, with the protocol's values. One whose default
            is an integer takes integers of at least 1, one whose default is a float any finite
            number.
        build: makes the plan that answers a request.
        need: what a candidate must have; None: nothing.
    """

    description: str
    defaults: Mapping[str, int | float]
    build: Callable[[AttackRequest], AttackPlan]
    need: Need | None = None


_registered: dict[str, Definition] = {}


def register_attack(name: str, definition: Definition) -> Definition:
    """Make an attack known by its name, and return its definition.

    A cell of a notebook may run again: a definition replaces an earlier one whose `build` has the
    same module and name. This package's own attacks are not replaced.

    Args:
        name: small letters, digits, ".", "_" and "-", with a letter or digit first.
        definition: of the attack.

    Raises:
        InputError: the name is malformed, or taken by another attack; or a default is neither an
            integer of at least 1 nor a finite float.
    """
    if not _NAME.fullmatch(name) or name in _RESERVED:
        raise InputError(
            f"expected an attack's name of small letters, digits, '.', '_' and '-', with a letter "
            f"or digit first, other than {', '.join(_RESERVED)}; got {name!r}"
        )
    for parameter, value in definition.defaults.items():
        _check_parameter(name, parameter, value, default=value)
    known = _registered.get(name, definition)
    is_own = place_of(known)[0].partition(".")[0] == OWN_PACKAGE
    if known is not definition and (is_own or place_of(known) != place_of(definition)):
        raise InputError(
            f"attack {name}: expected a name that is free, got that of {'.'.join(place_of(known))}"
        )
    _registered[name] = definition
    return definition


def place_of(definition: Definition) -> tuple[str, str]:
    """Return the module and the name of what builds an attack's plan."""
    build = definition.build
    kind = build if hasattr(build, "__qualname__") else type(build)
    return str(kind.__module__), str(kind.__qualname__)


class _Attacks(Mapping[str, Definition]):
    """All registered attacks by name, those of installed packages too."""

    def __getitem__(self, name: str) -> Definition:
        _discover()
        return _registered[name]

    def __iter__(self) -> Iterator[str]:
        _discover()
        return iter(_registered)

    def __len__(self) -> int:
        _discover()
        return len(_registered)


ATTACKS: Mapping[str, Definition] = _Attacks()

OWN_ATTACKS = (
    "An attack of your own is registered by importing its module first: in Python by import, for "
    "commands by `bench --plugin FILE ...` or the entry-point group " + plugins.ENTRY_POINT_GROUP
)
"""What to do where an attack is unknown, for messages."""


@cache
def _discover() -> None:
    """Register what installed packages offer."""
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        try:
            definition: Any = entry.load()
        except Exception as error:  # another package's code may raise anything
            raise InputError(
                f"entry point {entry.name} of {ENTRY_POINT_GROUP}: expected a Definition, got "
                f"{type(error).__name__}: {error}; repair or remove {entry.value}"
            ) from error
        if not isinstance(definition, Definition):
            raise InputError(
                f"entry point {entry.name} of {ENTRY_POINT_GROUP}: expected a Definition, got "
                f"{type(definition).__name__}"
            )
        register_attack(entry.name, definition)


def plan_attack(
    name: str, parameters: Mapping[str, Any], *, norm: Norm, eps: float, classes: int
) -> AttackPlan:
    """Return an attack as a suite asks for it.

    Args:
        name: one of `ATTACKS`.
        parameters: what differs from the defaults.
        norm: of the threat model.
        eps: its radius, in the [0, 1] pixel scale.
        classes: of the data set, at least 2.

    Raises:
        InputError: unknown name or parameter, or a value out of its range.
    """
    if name not in ATTACKS:
        raise InputError(f"expected an attack of {', '.join(ATTACKS)}; got {name!r}. {OWN_ATTACKS}")
    if classes < 2:
        raise InputError(f"expected at least 2 classes to attack, got {classes}")
    definition = ATTACKS[name]
    for parameter, value in parameters.items():
        if parameter not in definition.defaults:
            known = ", ".join(definition.defaults)
            raise InputError(f"attack {name}: expected parameters of {known}; got {parameter!r}")
        _check_parameter(name, parameter, value, definition.defaults[parameter])
    given = {**definition.defaults, **parameters}
    return definition.build(AttackRequest(name, norm, eps, classes, given))


def _check_parameter(name: str, parameter: str, value: Any, default: Any) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if isinstance(default, float):
        if not (is_number and math.isfinite(value)):
            raise InputError(
                f"attack {name}: expected a finite number for {parameter}, got {value!r}"
            )
    elif not (is_number and isinstance(value, int) and value >= 1):
        raise InputError(
            f"attack {name}: expected a whole number of at least 1 for {parameter}, got {value!r}"
        )
