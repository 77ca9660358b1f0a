"""A new attack: one file, through public interfaces only.

The fast gradient sign method: I. Goodfellow et al., "Explaining and Harnessing Adversarial
Examples", ICLR 2015.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from click.testing import CliRunner
from torch import Tensor
from torch.nn import functional

from bench.attacks import (
    Attack,
    AttackPlan,
    AttackRequest,
    Definition,
    Draws,
    Model,
    Passes,
    State,
    register_attack,
)
from bench.cli import main

STEPS = 2


class FGSM(Attack[State]):
    """One step along the gradient's sign, then one look at where it led."""

    def __init__(self, eps: float) -> None:
        self.norm = "Linf"
        self.eps = eps
        self.steps = STEPS
        self.passes = Passes(forward=0, forward_backward=1)
        self.arithmetic = ()

    def start(
        self,
        images: Tensor,
        labels: Tensor,
        draws: Draws,
        targets: Tensor | None = None,
        restarts: Tensor | None = None,
    ) -> State:
        """Start at the clean images."""
        return State(
            labels=labels.clone(),
            targets=torch.zeros_like(labels),
            best=images.clone(),
            broken=torch.zeros_like(labels, dtype=torch.bool),
            iteration=torch.zeros_like(labels),
        )

    def step(self, model: Model, state: State) -> State:
        """Look at the images, and move those that have not moved."""
        searching = ~self.finished(state)
        images = state.best.detach().requires_grad_()
        with torch.enable_grad():
            logits = model(images)
            loss = functional.cross_entropy(logits, state.labels, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, images)
        state.broken.logical_or_(searching & (logits.detach().argmax(dim=1) != state.labels))
        moving = (searching & ~state.broken & (state.iteration == 0)).view(-1, 1, 1, 1)
        state.best.add_(self.eps * gradient.sign() * moving).clamp_(0, 1)
        state.iteration.add_(searching)
        return state


def build(request: AttackRequest) -> AttackPlan:
    """Plan the attack that a suite asks for."""
    return request.plan(FGSM(request.eps))


@pytest.fixture(scope="module", autouse=True)
def registered() -> None:
    register_attack("fgsm", Definition("fast gradient sign (Goodfellow 2015)", {}, build))


def test_an_attack_from_outside_runs(tmp_path: Path) -> None:
    suite = {
        "name": "own",
        "version": 1,
        "title": "Own",
        "data": "digits",
        "threat_model": {"norm": "Linf", "eps": 0.2},
        "protocols": {"standard": {"attacks": ["fgsm"]}},
    }
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(suite))
    command = ["run", "--suite", str(tmp_path / "own.yaml"), "--candidate", "digits-standard"]
    places = ["--results-dir", str(tmp_path / "results"), "--report-dir", str(tmp_path / "reports")]
    result = CliRunner().invoke(main, [*command, *places, "--n-examples", "40"])
    assert result.exit_code == 0, result.output
    verify = ["verify", "own/digits-standard", "--suite", str(tmp_path / "own.yaml")]
    verified = CliRunner().invoke(main, [*verify, *places[:2]])
    assert verified.exit_code == 0, verified.output
    (path,) = (tmp_path / "results").glob("**/run.json")
    (attack,) = json.loads(path.read_text())["attacks"]
    assert attack["name"] == "fgsm"
    assert attack["broken"] > 20
    assert 1 - attack["accuracy_after"] >= attack["broken"] / 40
