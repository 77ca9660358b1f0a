"""Attacks by name, as suites write them; those of standard AutoAttack with its budgets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from bench.attacks.adaptive import (
    PUSHES,
    Phases,
    accurate_base_first,
    margin_of_probabilities,
    mix_apgd,
    other_weight_first,
    pushed,
    robust_base_first,
)
from bench.attacks.apgd import APGD
from bench.attacks.attack import Attack, Passes
from bench.attacks.distances import Norm
from bench.attacks.expectation import DRAWS
from bench.attacks.fab import FAB
from bench.attacks.losses import LOSSES, MINIMUM_CLASSES, is_targeted, loss_for
from bench.attacks.square import square_for
from bench.errors import InputError

STANDARD = ("apgd-ce", "apgd-t", "fab-t", "square")
"""Standard AutoAttack's sequence (Croce and Hein 2020, arXiv 2003.01690)."""


View = Literal["logits", "mix", "straight-through", "expectation"]
"""What an attack is shown of a candidate: its logits; a mix with its parts; its logits with the
gradient of a differentiable stand-in; the mean of several draws of its logits."""

Need = Literal["mix", "mixing network", "stopped gradient", "randomness"]
"""What a candidate must have for an attack to apply."""


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
    """

    name: str
    attack: Attack[Any]
    targets: int
    restarts: int
    parameters: Mapping[str, Any]
    note: str
    view: View = "logits"

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
        """Passes that pyautoattack takes for the same work; see `Attack.reference_passes`."""
        return self.attack.reference_passes(standing, self.targets > 0, queries)


@dataclass(frozen=True)
class Definition:
    """What is known of a name before it is used.

    Attributes:
        description: one line.
        defaults: parameters that a suite may change, with the protocol's values; all are integers
            of at least 1.
        build: makes the plan from name, norm, radius, number of classes and parameters.
        need: what a candidate must have; None: nothing.
    """

    description: str
    defaults: Mapping[str, int]
    build: Callable[[str, Norm, float, int, Mapping[str, int]], AttackPlan]
    need: Need | None = None


def plan_attack(
    name: str, parameters: Mapping[str, Any], *, norm: Norm, eps: float, classes: int
) -> AttackPlan:
    """An attack as a suite asks for it.

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
        raise InputError(f"expected an attack of {', '.join(ATTACKS)}; got {name!r}")
    if classes < 2:
        raise InputError(f"expected at least 2 classes to attack, got {classes}")
    definition = ATTACKS[name]
    for parameter, value in parameters.items():
        if parameter not in definition.defaults:
            known = ", ".join(definition.defaults)
            raise InputError(f"attack {name}: expected parameters of {known}; got {parameter!r}")
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise InputError(f"attack {name}: expected {parameter} >= 1, got {value!r}")
    return definition.build(name, norm, eps, classes, {**definition.defaults, **parameters})


def standard_autoattack(norm: Norm, eps: float, classes: int) -> tuple[AttackPlan, ...]:
    """Standard AutoAttack with its budgets.

    APGD on cross-entropy, 100 steps; APGD on targeted DLR, 9 targets of 100 steps; targeted FAB, 9
    targets of 100 steps; Square, 5,000 queries. One start each. Parameters as for `plan_attack`.

    Raises:
        InputError: a parameter is out of its range.
    """
    return tuple(plan_attack(name, {}, norm=norm, eps=eps, classes=classes) for name in STANDARD)


def _apgd(
    loss: str, view: View = "logits"
) -> Callable[[str, Norm, float, int, Mapping[str, int]], AttackPlan]:
    def build(
        name: str, norm: Norm, eps: float, classes: int, parameters: Mapping[str, int]
    ) -> AttackPlan:
        used = loss_for(loss, classes)
        targets, note = _targets(classes, parameters)
        if used != loss:
            needed = MINIMUM_CLASSES[loss]
            note = _join(f"loss {used} for {loss}, which needs {needed} classes", note)
        attack = APGD(
            norm,
            eps,
            LOSSES[used],
            targeted=is_targeted(used),
            steps=parameters["steps"],
            passes=DRAWS if view == "expectation" else 1,
        )
        record = {**parameters, "loss": used}
        return _plan(name, attack, targets, record, note, view)

    return build


def _fab(
    name: str, norm: Norm, eps: float, classes: int, parameters: Mapping[str, int]
) -> AttackPlan:
    targets, note = _targets(classes, parameters)
    return _plan(name, FAB(norm, eps, steps=parameters["steps"]), targets, parameters, note)


def _square(
    name: str, norm: Norm, eps: float, classes: int, parameters: Mapping[str, int]
) -> AttackPlan:
    attack = square_for(norm, eps, queries=parameters["queries"])
    return _plan(name, attack, 0, parameters, "")


def _on_mix(
    loss: str,
    phases: Phases,
    weights: Sequence[float | tuple[float, float]] = (0.0,),
) -> Callable[[str, Norm, float, int, Mapping[str, int]], AttackPlan]:
    make = mix_apgd(loss, phases, weights)

    def build(
        name: str, norm: Norm, eps: float, classes: int, parameters: Mapping[str, int]
    ) -> AttackPlan:
        attack, used = make(norm, eps, classes, parameters)
        targets, note = _targets(classes, parameters)
        return _plan(name, attack, targets, {**parameters, "loss": used}, note, "mix")

    return build


def _plan(
    name: str,
    attack: Attack[Any],
    targets: int,
    parameters: Mapping[str, Any],
    note: str,
    view: View = "logits",
) -> AttackPlan:
    record = {**parameters, "targets": targets} if targets else dict(parameters)
    restarts = parameters["restarts"]
    return AttackPlan(name, attack, targets, restarts, MappingProxyType(record), note, view)


def _targets(classes: int, parameters: Mapping[str, int]) -> tuple[int, str]:
    """How many targets there are, and a note if that is fewer than asked for."""
    asked = parameters.get("targets", 0)
    given = min(asked, classes - 1)
    return given, f"{given} targets for {asked}: {classes} classes" if given < asked else ""


def _join(*notes: str) -> str:
    return "; ".join(note for note in notes if note)


_STEPS = MappingProxyType({"steps": 100, "restarts": 1})
_TARGETED_STEPS = MappingProxyType({"steps": 100, "targets": 9, "restarts": 1})
_FEW_TARGETS = MappingProxyType({"steps": 100, "targets": 3, "restarts": 1})

ATTACKS: Mapping[str, Definition] = MappingProxyType(
    {
        "apgd-ce": Definition(
            "Auto-PGD on the cross-entropy (Croce and Hein 2020)", _STEPS, _apgd("ce")
        ),
        "apgd-dlr": Definition(
            "Auto-PGD on the difference of logits ratio (Croce and Hein 2020)",
            _STEPS,
            _apgd("dlr"),
        ),
        "apgd-t": Definition(
            "Auto-PGD on the targeted difference of logits ratio (Croce and Hein 2020)",
            _TARGETED_STEPS,
            _apgd("dlr-targeted"),
        ),
        "fab-t": Definition(
            "Targeted fast adaptive boundary attack (Croce and Hein 2020)", _TARGETED_STEPS, _fab
        ),
        "square": Definition(
            "Square attack: random search without gradients (Andriushchenko et al. 2020)",
            MappingProxyType({"queries": 5000, "restarts": 1}),
            _square,
        ),
        "apgd-alpha-ce": Definition(
            "Auto-PGD on the cross-entropy and on a mix's weight (Bai et al. 2024)",
            MappingProxyType({"steps": 100, "restarts": len(PUSHES)}),
            _on_mix("ce", pushed, PUSHES),
            "mixing network",
        ),
        "apgd-alpha-t": Definition(
            "Auto-PGD on targeted DLR and on a mix's weight (Bai et al. 2024)",
            MappingProxyType({"steps": 100, "targets": 3, "restarts": len(PUSHES)}),
            _on_mix("dlr-targeted", pushed, PUSHES),
            "mixing network",
        ),
        "apgd-mix-margin": Definition(
            "Auto-PGD on the margin of a mix's probabilities",
            _STEPS,
            _on_mix("margin", margin_of_probabilities),
            "mix",
        ),
        "apgd-accurate": Definition(
            "Auto-PGD on a mix's accurate base alone, then from there on the mix",
            _FEW_TARGETS,
            _on_mix("dlr-targeted", accurate_base_first),
            "mix",
        ),
        "apgd-robust": Definition(
            "Auto-PGD on a mix's robust base alone, then from there on the mix",
            _FEW_TARGETS,
            _on_mix("dlr-targeted", robust_base_first),
            "mix",
        ),
        "apgd-other-alpha": Definition(
            "Auto-PGD on the mix at another weight, then from there on the mix",
            _FEW_TARGETS,
            _on_mix("dlr-targeted", other_weight_first, ((0.0, 1.0),)),
            "mix",
        ),
        "apgd-straight-through": Definition(
            "Auto-PGD with a stand-in where gradients stop (BPDA, Athalye et al. 2018)",
            _FEW_TARGETS,
            _apgd("dlr-targeted", "straight-through"),
            "stopped gradient",
        ),
        "apgd-expectation": Definition(
            "Auto-PGD on the mean over a candidate's draws (EOT, Athalye et al. 2018)",
            _FEW_TARGETS,
            _apgd("dlr-targeted", "expectation"),
            "randomness",
        ),
    }
)
