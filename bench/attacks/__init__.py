"""Attacks: one a file, stepped, without any scheduling.

The functions `apgd`, `fab`, `square` and `autoattack`, for programs that have tensors and want
adversarial images, are offered here too. They are scheduled by an engine, so they stand above this
package (`bench.api.attacks`) and are imported when they are asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

import bench.attacks.adaptive  # noqa: F401  (registers its attacks)
from bench.attacks.attack import Attack, AttackedSamples, Model, Passes, likeliest_wrong_classes
from bench.attacks.auto_pgd import APGD
from bench.attacks.draws import Draws, GivenDraws, KeyedDraws, keyed_draws
from bench.attacks.fast_adaptive_boundary import FAB
from bench.attacks.fast_minimum_norm import FMN
from bench.attacks.plain import attack_images
from bench.attacks.registry import (
    ATTACKS,
    AttackPlan,
    AttackRequest,
    Definition,
    plan_attack,
    register_attack,
)
from bench.attacks.square_l2 import SquareL2
from bench.attacks.square_linf import SquareLinf
from bench.attacks.standard import standard_autoattack
from bench.attacks.state import State, concatenate, insert, overwrite, reopen, select
from bench.attacks.tolerance import inside, least_radii, tolerance

if TYPE_CHECKING:
    from bench.api.attacks import apgd, autoattack, fab, square

__all__ = [
    "APGD",
    "ATTACKS",
    "FAB",
    "FMN",
    "Attack",
    "AttackPlan",
    "AttackRequest",
    "AttackedSamples",
    "Definition",
    "Draws",
    "GivenDraws",
    "KeyedDraws",
    "Model",
    "Passes",
    "SquareL2",
    "SquareLinf",
    "State",
    "apgd",
    "attack_images",
    "autoattack",
    "concatenate",
    "fab",
    "insert",
    "inside",
    "keyed_draws",
    "least_radii",
    "likeliest_wrong_classes",
    "overwrite",
    "plan_attack",
    "register_attack",
    "reopen",
    "select",
    "square",
    "standard_autoattack",
    "tolerance",
]

_FUNCTIONS = ("apgd", "autoattack", "fab", "square")


def __getattr__(name: str) -> Any:
    """Import a function on tensors when it is first asked for."""
    if name in _FUNCTIONS:
        return getattr(import_module("bench.api.attacks"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
