"""The drop-in AutoAttack beside pyautoattack, its log, its state file and its settings."""

from __future__ import annotations

import copy
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pyautoattack import AutoAttack as Reference
from torch import Tensor, nn

from bench import data
from bench.attacks import inside
from bench.autoattack import AutoAttack
from bench.candidates.registry import find_candidates
from bench.errors import EvaluationError, InputError
from bench.suites import load_suite

CLOSE = 0.003
"""Difference of robust accuracies that is allowed; of few samples, one may differ."""


def _accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    with torch.no_grad():
        return float((model(images).argmax(dim=1) == labels).float().mean())


def _compare(
    model: nn.Module, images: Tensor, labels: Tensor, norm: Any, eps: float, share: float = 1.0
) -> None:
    """Hold the drop-in's accuracy and images against pyautoattack's accuracy.

    Args:
        share: of every attack's steps, for both.
    """
    reference = Reference(model, norm=norm, eps=eps, seed=0)
    adversary = AutoAttack(model, norm, eps, seed=0, verbose=False)
    for each in (reference, adversary):
        for attack in (each.apgd, each.apgd_targeted, each.fab):
            attack.n_iter = round(share * attack.n_iter)
        each.square.n_queries = round(share * each.square.n_queries)
    with torch.random.fork_rng():
        theirs, _ = reference.run_standard_evaluation(images, labels)
    ours, predictions = adversary.run_standard_evaluation(images, labels, return_labels=True)
    assert inside(ours, images, norm, eps).all()
    accuracy = _accuracy(model, ours, labels)
    assert float((predictions == labels).float().mean()) == accuracy
    difference = abs(accuracy - _accuracy(model, theirs, labels))
    assert difference <= max(CLOSE, 1 / len(images)) + 1e-6
    assert 0 < accuracy < _accuracy(model, images, labels)


def _shipped(suite: str, name: str, n: int, data_dir: Path | None = None) -> Any:
    loaded = load_suite(suite)
    (reference,) = find_candidates([name], loaded)
    samples = data.load_source(loaded.data, data_dir, n)
    return reference.load().module, samples.images, samples.labels


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor]:
    first = data.load("digits", "test").first(24)
    return first.images, first.labels


@pytest.mark.parametrize(("norm", "eps"), [("Linf", 0.05), ("L2", 0.25)])
def test_agrees_with_pyautoattack(
    norm: str, eps: float, linear_digits: nn.Module, digits: tuple[Tensor, Tensor]
) -> None:
    _compare(linear_digits, *digits, norm, eps, share=0.1)


@pytest.mark.slow
@pytest.mark.cifar
@pytest.mark.parametrize(("norm", "scale"), [("Linf", 1.0), ("L2", 16.0)])
@pytest.mark.parametrize(
    ("suite", "candidate", "n", "eps"),
    [
        ("digits-linf", "digits-robust", 360, 0.2),
        ("cifar10-linf", "cifar10-robust", 100, 8 / 255),
        ("cifar10-linf", "benchmarks/networks/residual-small", 100, 2 / 255),
    ],
)
def test_agrees_with_pyautoattack_on_trained_networks(
    suite: str, candidate: str, n: int, eps: float, norm: str, scale: float, data_dir: Path
) -> None:
    model, images, labels = _shipped(suite, candidate, n, data_dir)
    scale = 2.5 if norm == "L2" and suite == "digits-linf" else scale
    _compare(model, images, labels, norm, scale * eps)


def _quick(model: nn.Module, **options: Any) -> AutoAttack:
    """An adversary with small budgets."""
    adversary = AutoAttack(model, **{"eps": 0.05, "verbose": False, **options})
    adversary.apgd.n_iter = adversary.apgd_targeted.n_iter = adversary.fab.n_iter = 5
    adversary.apgd_targeted.n_target_classes = adversary.fab.n_target_classes = 2
    adversary.square.n_queries = 20
    return adversary


LOG = r"""setting parameters for standard version
using standard version including apgd-ce, apgd-t, fab-t, square\.
attacked by bench \S+, engine fast, seed 0
initial accuracy: \d+\.\d\d%
(.* - \d+/\d+ - \d+ out of \d+ successfully perturbed
robust accuracy after \S+: \d+\.\d\d% \(total time \d+\.\d s\)
){4}max Linf perturbation: 0\.05000, nan in tensor: 0, max: 1\.00000, min: 0\.00000
robust accuracy: (\d+\.\d\d)%
"""


def test_log_is_written_to_both_places(
    linear_digits: nn.Module,
    digits: tuple[Tensor, Tensor],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    log = tmp_path / "log.txt"
    adversary = _quick(linear_digits, verbose=True, log_path=log)
    found = adversary.run_standard_evaluation(*digits)
    text = log.read_text()
    assert capsys.readouterr().out == text
    match = re.fullmatch(LOG, text)
    assert match
    assert float(match[2]) == round(100 * _accuracy(linear_digits, found, digits[1]), 2)


def test_attacks_one_by_one(linear_digits: nn.Module, digits: tuple[Tensor, Tensor]) -> None:
    names = ["apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"]
    adversary = _quick(linear_digits, version="plus")
    assert adversary.attacks_to_run == names
    assert (adversary.apgd.n_restarts, adversary.fab.n_restarts) == (5, 5)
    adversary.apgd.n_restarts = adversary.fab.n_restarts = 1
    alone = adversary.run_standard_evaluation_individual(*digits)
    assert list(alone) == names
    for found in alone.values():
        assert inside(found, digits[0], "Linf", 0.05).all()
        assert adversary.clean_accuracy(found, digits[1], bs=7) < 0.95
    with_labels = adversary.run_standard_evaluation_individual(*digits, return_labels=True)
    for name, (found, labels) in with_labels.items():
        assert torch.equal(found, alone[name])
        assert torch.equal(labels, linear_digits(found).argmax(dim=1))


def test_settings_from_outside_count(
    linear_digits: nn.Module, digits: tuple[Tensor, Tensor], capsys: pytest.CaptureFixture[str]
) -> None:
    adversary = AutoAttack(
        linear_digits, "Linf", 0.05, 4, version="custom", attacks_to_run=["apgd-ce"], device="auto"
    )
    assert (adversary.apgd.n_restarts, adversary.get_seed()) == (5, 4)
    adversary.attacks_to_run = ["square", "fab"]
    adversary.square.n_queries = 10
    adversary.fab.n_iter, adversary.fab.n_restarts = 5, 1
    adversary.run_standard_evaluation(*digits)
    assert "using custom version including square, fab." in capsys.readouterr().out
    with pytest.raises(AttributeError, match="rho"):
        adversary.apgd.rho = 0.5  # type: ignore[attr-defined]
    assert torch.equal(adversary.get_logits(digits[0]), linear_digits(digits[0]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"is_tf_model": True}, "expected a PyTorch model, got is_tf_model=True"),
        ({"version": "fast"}, "version of standard, plus, rand, custom; got 'fast'"),
        ({"attacks_to_run": ["fab"]}, "attacks_to_run with version='custom' only"),
    ],
)
def test_wrong_arguments_are_named(
    options: dict[str, Any], message: str, linear_digits: nn.Module
) -> None:
    with pytest.raises(InputError, match=message):
        AutoAttack(linear_digits, verbose=False, **options)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"norm": "L1"}, "expected norm Linf or L2 for .*, got L1"),
        ({"attacks_to_run": ["pgd"]}, "attacks_to_run of apgd-ce, .*; got 'pgd'"),
        ({"attacks_to_run": []}, "at least one attack, got none"),
        ({"seed": 1.5}, "a seed as a whole number"),
        ({"device": "cuda"}, "a device that torch sees, got 'cuda'|Move it with model.to"),
        ({"device": "gpu"}, "a device such as 'cpu' or 'cuda', got 'gpu'"),
    ],
)
def test_wrong_attributes_are_named_when_it_runs(
    changes: dict[str, Any],
    message: str,
    linear_digits: nn.Module,
    digits: tuple[Tensor, Tensor],
) -> None:
    adversary = _quick(linear_digits)
    for name, value in changes.items():
        setattr(adversary, name, value)
    with pytest.raises(InputError, match=message):
        adversary.run_standard_evaluation(*digits)


def test_number_of_draws_is_one_of_two(
    linear_digits: nn.Module, digits: tuple[Tensor, Tensor]
) -> None:
    adversary = _quick(linear_digits)
    adversary.apgd.eot_iter = 7
    with pytest.raises(InputError, match="eot_iter of 1, or of 20"):
        adversary.run_standard_evaluation(*digits)


class _Noisy(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images + 0.05 * torch.randn_like(images))
        return logits


def test_version_rand_breaks_the_mean_answer(
    linear_digits: nn.Module, digits: tuple[Tensor, Tensor]
) -> None:
    images, labels = digits[0][:8], digits[1][:8]
    model = _Noisy(linear_digits).eval()
    adversary = _quick(model, version="rand")
    assert adversary.attacks_to_run == ["apgd-ce", "apgd-dlr"]
    found, predictions = adversary.run_standard_evaluation(images, labels, return_labels=True)
    broken = predictions != labels
    assert broken.any()
    with torch.no_grad():
        mean = torch.stack([model(found).softmax(dim=1) for _ in range(200)]).mean(dim=0)
    assert torch.all(mean.argmax(dim=1)[broken] != labels[broken])


def test_training_mode_is_told_and_comes_back(
    linear_digits: nn.Module, digits: tuple[Tensor, Tensor]
) -> None:
    model = nn.Sequential(nn.BatchNorm2d(1), copy.deepcopy(linear_digits)).train()
    with pytest.warns(UserWarning, match="in training mode"):
        _quick(model).run_standard_evaluation(*digits)
    assert model.training


def test_no_gradient_is_told(linear_digits: nn.Module, digits: tuple[Tensor, Tensor]) -> None:
    def hard(images: Tensor) -> Tensor:
        with torch.no_grad():
            logits: Tensor = linear_digits(images)
        return logits

    with pytest.warns(UserWarning, match="apgd-ce, apgd-t, fab-t were left out"):
        _quick(hard).run_standard_evaluation(*digits)
    with pytest.raises(EvaluationError, match=r"attacks_to_run=\['square'\]"):
        _quick(hard, version="custom", attacks_to_run=["fab"]).run_standard_evaluation(*digits)


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8])
def test_labels_come_back_in_their_dtype(
    dtype: torch.dtype, linear_digits: nn.Module, digits: tuple[Tensor, Tensor]
) -> None:
    images, labels = digits
    found, predictions = _quick(linear_digits).run_standard_evaluation(
        images, labels.to(dtype), bs=1000, return_labels=True
    )
    assert predictions.dtype == (torch.int32 if dtype.is_signed else torch.int64)
    assert torch.equal(predictions.long(), linear_digits(found).argmax(dim=1))


STOPPED = """
import os, sys, torch
from pathlib import Path
from bench.autoattack import AutoAttack
from bench.api.attack_state import AttackState

images, labels, model = torch.load(sys.argv[1], weights_only=False)
add = AttackState.add

def dying(self, block):
    add(self, block)
    if block.key == "01-apgd-ce-00000":
        self.save()  # How often it is saved of itself depends on the time.
        os.kill(os.getpid(), 9)

AttackState.add = dying
adversary = AutoAttack(model, eps=0.05, verbose=False, version="custom")
adversary.attacks_to_run = ["apgd-ce", "square"]
adversary.square.n_queries = 20
adversary.run_standard_evaluation(images, labels, state_path=sys.argv[2])
"""


def test_goes_on_after_it_was_killed(
    linear_digits: nn.Module,
    digits: tuple[Tensor, Tensor],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    state = tmp_path / "state"
    torch.save((*digits, linear_digits), tmp_path / "problem.pt")
    arguments = [sys.executable, "-c", STOPPED, str(tmp_path / "problem.pt"), str(state)]
    assert subprocess.run(arguments, check=False).returncode == -9

    adversary = AutoAttack(linear_digits, eps=0.05, version="custom")
    adversary.attacks_to_run = ["apgd-ce", "square"]
    adversary.square.n_queries = 20
    resumed = adversary.run_standard_evaluation(*digits, state_path=state)
    log = capsys.readouterr().out
    assert f"Restored state from {state}" in log
    assert "apgd-ce - " not in log  # it is not run again
    assert "square - " in log
    whole = adversary.run_standard_evaluation(*digits)
    assert torch.equal(resumed, whole)
    assert torch.equal(adversary.run_standard_evaluation(*digits, state_path=state), whole)


def test_a_state_of_something_else_is_refused(
    linear_digits: nn.Module, digits: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    images, labels = digits
    state = tmp_path / "state"
    _quick(linear_digits).run_standard_evaluation(images, labels, state_path=state)
    kept = state.read_bytes()
    other = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()
    cases: list[tuple[nn.Module, Tensor, Tensor, dict[str, Any], str]] = [
        (linear_digits, images.flip(0), labels, {}, "same images"),
        (linear_digits, images, labels.roll(1), {}, "same labels"),
        (linear_digits, images, labels, {"eps": 0.06}, "same threat model"),
        (linear_digits, images, labels, {"seed": 1}, "same seed"),
        (linear_digits, images, labels, {"version": "plus"}, "same attacks"),
        (other, images, labels, {}, "same model's weights, model's answers"),
    ]
    for model, some_images, some_labels, options, message in cases:
        with pytest.raises(InputError, match=message):
            _quick(model, **options).run_standard_evaluation(
                some_images, some_labels, state_path=state
            )
    assert state.read_bytes() == kept
    for content in (b"{}", kept[:-200], b""):
        state.write_bytes(content)
        with pytest.raises(InputError, match="a state that bench"):
            _quick(linear_digits).run_standard_evaluation(images, labels, state_path=state)
    np.savez(tmp_path / "other.npz", header=np.array("3"))
    with pytest.raises(InputError, match="a state that bench"):
        _quick(linear_digits).run_standard_evaluation(
            images, labels, state_path=tmp_path / "other.npz"
        )
    with pytest.raises(InputError, match="in a folder that exists"):
        _quick(linear_digits).run_standard_evaluation(
            images, labels, state_path=tmp_path / "none" / "state"
        )


def test_it_prints_the_call_that_makes_it() -> None:
    adversary = AutoAttack(nn.Flatten(), "L2", 0.5, verbose=False)
    adversary.attacks_to_run = ["apgd-ce"]
    assert repr(adversary) == (
        "AutoAttack(Flatten, norm='L2', eps=0.5, seed=None, attacks_to_run=['apgd-ce'], "
        "version='standard')"
    )
    assert repr(AutoAttack(_accuracy, verbose=False)).startswith("AutoAttack(_accuracy, ")  # type: ignore[arg-type]
