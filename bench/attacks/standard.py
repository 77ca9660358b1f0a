"""AutoAttack: its attacks under the names and with the budgets of its authors.

F. Croce and M. Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse
parameter-free attacks", ICML 2020, arXiv 2003.01690.
"""

from __future__ import annotations

from collections.abc import Callable

from bench.attacks.auto_pgd import APGD
from bench.attacks.distances import Norm
from bench.attacks.expectation import DRAWS
from bench.attacks.fast_adaptive_boundary import FAB
from bench.attacks.fast_minimum_norm import FMN
from bench.attacks.losses import LOSSES, MINIMUM_CLASSES, is_targeted, loss_for
from bench.attacks.registry import (
    STANDARD,
    AttackPlan,
    AttackRequest,
    Definition,
    View,
    plan_attack,
    register_attack,
)
from bench.attacks.square_by_norm import square_for


def standard_autoattack(norm: Norm, eps: float, classes: int) -> tuple[AttackPlan, ...]:
    """Return standard AutoAttack with its budgets.

    APGD on cross-entropy, 100 steps; APGD on targeted DLR, 9 targets of 100 steps; targeted FAB, 9
    targets of 100 steps; Square, 5,000 queries. One start each. Parameters as for `plan_attack`.

    Raises:
        InputError: a parameter is out of its range.
    """
    return tuple(plan_attack(name, {}, norm=norm, eps=eps, classes=classes) for name in STANDARD)


def apgd_on(loss: str, view: View = "logits") -> Callable[[AttackRequest], AttackPlan]:
    """Return what builds Auto-PGD on a loss; on a margin where the classes are too few for it.

    Args:
        loss: a name of `LOSSES`.
        view: what the attack is shown of the candidate.
    """

    def build(request: AttackRequest) -> AttackPlan:
        used = loss_for(loss, request.classes)
        attack = APGD(
            request.norm,
            request.eps,
            LOSSES[used],
            targeted=is_targeted(used),
            steps=request.parameters["steps"],
            passes=DRAWS if view == "expectation" else 1,
        )
        note = ""
        if used != loss:
            note = f"loss {used} for {loss}, which needs {MINIMUM_CLASSES[loss]} classes"
        return request.plan(attack, loss=used, note=note, view=view)

    return build


def _fab(request: AttackRequest) -> AttackPlan:
    steps, classes = request.parameters["steps"], request.classes
    attack = FAB(request.norm, request.eps, steps=steps, classes=classes)
    return request.plan(attack, view="uncompiled")


def _targeted_fab(request: AttackRequest) -> AttackPlan:
    return request.plan(FAB(request.norm, request.eps, steps=request.parameters["steps"]))


def _fmn(request: AttackRequest) -> AttackPlan:
    return request.plan(FMN(request.norm, request.eps, steps=request.parameters["steps"]))


def _targeted_fmn(request: AttackRequest) -> AttackPlan:
    steps = request.parameters["steps"]
    return request.plan(FMN(request.norm, request.eps, targeted=True, steps=steps))


def _square(request: AttackRequest) -> AttackPlan:
    queries = request.parameters["queries"]
    return request.plan(square_for(request.norm, request.eps, queries=queries))


register_attack(
    "apgd-ce",
    Definition(
        "Auto-PGD on the cross-entropy (Croce and Hein 2020)",
        {"steps": 100, "restarts": 1},
        apgd_on("ce"),
    ),
)
register_attack(
    "apgd-dlr",
    Definition(
        "Auto-PGD on the difference of logits ratio (Croce and Hein 2020)",
        {"steps": 100, "restarts": 1},
        apgd_on("dlr"),
    ),
)
register_attack(
    "apgd-t",
    Definition(
        "Auto-PGD on the targeted difference of logits ratio (Croce and Hein 2020)",
        {"steps": 100, "targets": 9, "restarts": 1},
        apgd_on("dlr-targeted"),
    ),
)
register_attack(
    "fab-t",
    Definition(
        "Targeted fast adaptive boundary attack (Croce and Hein 2020)",
        {"steps": 100, "targets": 9, "restarts": 1},
        _targeted_fab,
    ),
)
register_attack(
    "fab",
    Definition(
        "Fast adaptive boundary attack, untargeted (Croce and Hein 2020)",
        {"steps": 100, "restarts": 1},
        _fab,
    ),
)
register_attack(
    "fmn",
    Definition(
        "Fast minimum-norm attack (Pintor et al. 2021)",
        {"steps": 100},
        _fmn,
    ),
)
register_attack(
    "fmn-t",
    Definition(
        "Fast minimum-norm attack, towards one class after the other",
        {"steps": 100, "targets": 3},
        _targeted_fmn,
    ),
)
register_attack(
    "square",
    Definition(
        "Square attack: random search without gradients (Andriushchenko et al. 2020)",
        {"queries": 5000, "restarts": 1},
        _square,
    ),
)
