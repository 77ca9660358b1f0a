"""Attacks: one a file, stepped, without any scheduling."""

import bench.attacks.adaptive  # noqa: F401  (registers its attacks)
from bench.attacks.attack import Attack, AttackedSamples, Model, Passes, likeliest_wrong_classes
from bench.attacks.auto_pgd import APGD
from bench.attacks.draws import Draws, GivenDraws, KeyedDraws, keyed_draws
from bench.attacks.fast_adaptive_boundary import FAB
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
from bench.attacks.state import State, concatenate, insert, reopen, select
from bench.attacks.tolerance import inside, tolerance

__all__ = [
    "APGD",
    "ATTACKS",
    "FAB",
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
    "attack_images",
    "concatenate",
    "insert",
    "inside",
    "keyed_draws",
    "likeliest_wrong_classes",
    "plan_attack",
    "register_attack",
    "reopen",
    "select",
    "standard_autoattack",
    "tolerance",
]
