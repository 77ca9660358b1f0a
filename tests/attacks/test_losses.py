"""Losses against their formulas, and what replaces them for few classes."""

from __future__ import annotations

import pytest
import torch
from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted

from bench.attacks.losses import LOSSES, loss_for

LOGITS = torch.randn(40, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
LABELS = torch.arange(40) % 7
TARGETS = (LABELS + 1 + torch.arange(40) % 6) % 7


@pytest.mark.parametrize("name", ["dlr", "dlr-targeted"])
def test_dlr_is_the_references(name: str) -> None:
    if name == "dlr":
        expected = APGDAttack(None, eps=1.0).dlr_loss(LOGITS, LABELS)
    else:
        reference = APGDAttack_targeted(None, eps=1.0)
        reference.y_target = TARGETS
        expected = reference.dlr_loss_targeted(LOGITS, LABELS)
    torch.testing.assert_close(LOSSES[name](LOGITS, LABELS, TARGETS), expected)


@pytest.mark.parametrize("name", ["dlr", "margin"])
def test_positive_where_another_class_leads(name: str) -> None:
    wrong = LOGITS.argmax(dim=1) != LABELS
    assert torch.equal(LOSSES[name](LOGITS, LABELS, TARGETS) > 0, wrong)


def test_margins_and_cross_entropies() -> None:
    rows = torch.arange(40)
    label, target = LOGITS[rows, LABELS], LOGITS[rows, TARGETS]
    for name, expected in {
        "margin-targeted": target - label,
        "ce": LOGITS.logsumexp(dim=1) - label,
        "ce-targeted": target - LOGITS.logsumexp(dim=1),
    }.items():
        torch.testing.assert_close(LOSSES[name](LOGITS, LABELS, TARGETS), expected)


@pytest.mark.parametrize(
    ("name", "classes", "used"),
    [
        ("ce", 2, "ce"),
        ("dlr", 2, "margin"),
        ("dlr", 3, "dlr"),
        ("dlr-targeted", 3, "margin-targeted"),
        ("dlr-targeted", 4, "dlr-targeted"),
    ],
)
def test_few_classes_take_a_margin(name: str, classes: int, used: str) -> None:
    assert loss_for(name, classes) == used
