"""Smoothed candidates: deterministic, differentiable, and built from a submission."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import nn

from bench import data
from bench.candidates.registry import find_candidates
from bench.candidates.smoothed import Smoothed, smoothed
from bench.errors import InputError
from bench.suites import load_suite

ARGUMENTS = {
    "base_architecture": "bench.candidates.architectures:digits_network",
    "base_args": {"widths": [4]},
    "sigma": 0.25,
    "noise_samples": 5,
    "seed": 2,
}


def test_logits_are_the_log_of_the_mean_softmax(linear_digits: nn.Module) -> None:
    module = Smoothed(linear_digits, 0.25, noise_samples=7, seed=3)
    images = data.load("digits").images[:6].requires_grad_()
    logits = module(images)
    bank = module.bank(images)
    expected = torch.stack([linear_digits(images + noise).softmax(dim=1) for noise in bank]).mean(0)
    torch.testing.assert_close(logits.exp(), expected)
    torch.testing.assert_close(logits.exp().sum(dim=1), torch.ones(6))
    assert torch.equal(Smoothed(linear_digits, 0.25, 7, 3)(images), logits)
    assert not torch.equal(Smoothed(linear_digits, 0.25, 7, 4)(images), logits)
    (gradient,) = torch.autograd.grad(logits[:, 0].sum(), images)
    assert bool((gradient.flatten(1).norm(dim=1) > 0).all())
    # Finite where softmax itself would underflow.
    steep = Smoothed(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), 0.25, 2, 0)
    with torch.no_grad():
        for parameter in steep.parameters():
            parameter.mul_(1e5)
    assert bool(torch.isfinite(steep(images)).all())


def test_a_submission_says_sigma_and_who_votes(tmp_path: Path) -> None:
    module = smoothed(**ARGUMENTS)  # type: ignore[arg-type]
    save_file(module.state_dict(), tmp_path / "weights.safetensors")
    digest = hashlib.sha256((tmp_path / "weights.safetensors").read_bytes()).hexdigest()
    fields = {
        "name": "small",
        "dataset": "digits",
        "architecture": "bench.candidates.smoothed:smoothed",
        "architecture_args": ARGUMENTS,
        "weights": "weights.safetensors",
        "sha256": digest,
    }
    (tmp_path / "submission.yaml").write_text(yaml.safe_dump(fields))
    (reference,) = find_candidates([f"{tmp_path}/"], load_suite("digits-l2"))
    candidate = reference.load()
    assert candidate.sigma == 0.25
    assert isinstance(candidate.module, Smoothed)
    assert candidate.voter is candidate.module.base
    images = data.load("digits").images[:3]
    torch.testing.assert_close(candidate.module(images), module.eval()(images))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"sigma": 0}, InputError, "sigma > 0, got 0"),
        ({"sigma": "wide"}, InputError, "sigma > 0, got wide"),
        ({"noise_samples": 0}, InputError, "noise_samples >= 1, got 0"),
        ({"base_architecture": "os:system"}, ValueError, "a function below bench.candidates"),
        ({"base_architecture": "bench.candidates.nowhere:f"}, ValueError, "nowhere"),
    ],
)
def test_wrong_arguments_are_named(
    changes: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        smoothed(**{**ARGUMENTS, **changes})  # type: ignore[arg-type]
