"""Attack survivors with ever larger budgets, until a larger one would change next to nothing.

Standard AutoAttack stops at a fixed budget. Here the gradient attacks go on: each doubling spends
twice the passes of the one before, by turns on more restarts and on more steps. From the shares of
survivors that the doublings broke, the share that the next one would break is extrapolated as a
geometric series.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from bench.attacks import AttackPlan, plan_attack
from bench.engines.engine import AttackTask

UNTIL_CONVERGED = "until-converged"
ATTACKS = ("apgd-ce", "apgd-t")
MOST_DOUBLINGS = 6
SETTLED_SHARE = 0.001
"""The search ends when another doubling is expected to break a smaller share of the survivors."""
STEPS = 100


def harder_plans(task: AttackTask, doubling: int) -> list[AttackPlan]:
    """Return the attacks of a doubling, counted from 1, under names of their own."""
    parameters = {"restarts": 2 ** ((doubling + 1) // 2), "steps": STEPS * 2 ** (doubling // 2)}
    plans = []
    for name in ATTACKS:
        plan = plan_attack(
            name,
            parameters,
            norm=task.threat_model.norm,
            eps=task.threat_model.eps,
            classes=task.classes,
        )
        plans.append(replace(plan, name=doubled_name(name, doubling)))
    return plans


def doubled_name(attack: str, doubling: int) -> str:
    """Return the name of an attack at 2^doubling times its budget; names key random streams."""
    return f"{attack}-x{2**doubling}"


def expected_share(shares: Sequence[float]) -> float:
    """Return the share of survivors that another doubling would break.

    Args:
        shares: of survivors that each doubling so far broke, in [0, 1]; at least one.

    Returns:
        the last share, times its ratio to the one before where the shares fall.
    """
    last = shares[-1]
    before = shares[-2] if len(shares) > 1 else 0.0
    return last * min(1.0, last / before) if before else last
