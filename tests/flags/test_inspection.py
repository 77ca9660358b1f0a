"""Each way of answering badly raises its own flag, and an honest module raises none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bench import data, flags
from bench.candidates import Candidate
from bench.errors import InputError
from bench.runs.session import evaluate
from bench.runs.settings import Settings
from bench.store import Store
from bench.store.summary import AttackSummary
from bench.suites import load_suite
from tests.silent import SilentObserver

CLASSES = 5


class Answer(nn.Module):
    """A small network, and what is done to its logits."""

    def __init__(self, change: Callable[[Tensor, Tensor], object]) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(3 * 16, CLASSES, generator=generator))
        self.change = change

    def forward(self, images: Tensor) -> object:
        return self.change(images, images.flatten(1) @ self.weight)


def _write_into(images: Tensor, logits: Tensor) -> Tensor:
    images.mul_(0.5)
    return logits


def _raised(module: nn.Module) -> set[str]:
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(8, 3, 4, 4, generator=generator)
    labels = torch.arange(8) % CLASSES
    found = flags.inspect("it", module, images, labels, CLASSES, randomized=False)
    return {flag.name for flag in found}


def test_an_honest_module_raises_no_flag() -> None:
    assert _raised(Answer(lambda _, logits: logits).eval()) == set()


@pytest.mark.parametrize(
    ("change", "flag"),
    [
        (lambda _, logits: logits.softmax(dim=1), "probabilities"),
        (lambda _, logits: logits + torch.rand(logits.shape), "randomized"),
        (lambda _, logits: logits.detach(), "zero-gradients"),
        (lambda _, logits: logits.half(), "low-precision-logits"),
        (lambda _, logits: logits - logits.mean(dim=0), "batch-dependent"),
        (_write_into, "changes-input"),
    ],
)
def test_a_bad_answer_raises_its_flag(
    change: Callable[[Tensor, Tensor], Tensor], flag: str
) -> None:
    assert flag in _raised(Answer(change).eval())


class _OneMemory(nn.Module):
    """Writes every answer into the same memory."""

    def __init__(self, noise: float) -> None:
        super().__init__()
        self.noise = noise
        self.fc = nn.Linear(3 * 16, CLASSES)
        self.out = torch.zeros(256, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        out = self.out[: len(images)]
        with torch.no_grad():
            out.copy_(self.fc(images.flatten(1)))
            out.add_(self.noise * torch.randn_like(out))
        return out


def test_answers_that_share_their_memory_are_compared_as_they_were_given() -> None:
    assert "randomized" in _raised(_OneMemory(0.1).eval())
    still = _raised(_OneMemory(0.0).eval())
    assert "zero-gradients" in still
    assert not {"randomized", "batch-dependent"} & still


def test_a_part_left_in_training_mode_is_named() -> None:
    module = nn.Sequential(nn.BatchNorm2d(3), Answer(lambda _, logits: logits)).eval()
    module[0].train()
    assert {"training-mode", "batch-dependent"} <= _raised(module)


def test_a_part_that_training_mode_makes_fail_is_named_too() -> None:
    module = nn.Sequential(Answer(lambda _, logits: logits), nn.BatchNorm1d(CLASSES)).eval()
    module[1].train()
    with pytest.raises(InputError, match="in training mode"):
        _raised(module)


def test_a_gradient_that_is_no_number_raises_its_flag() -> None:
    rooted = Answer(lambda images, logits: logits + 0 * (0 * images[:, :1, 0, 0]).sqrt())
    assert "non-finite-gradients" in _raised(rooted.eval())
    assert "non-finite-gradients" not in _raised(Answer(lambda _, logits: logits).eval())


def test_attacks_that_could_not_run_are_no_autoattack(tmp_path: Path) -> None:
    suite = load_suite("digits-linf")
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    candidate = Candidate("cut", _Cut(module).eval(), {}, "")
    settings = Settings(suite, engine="fast", protocol="standard", n_examples=8)
    samples = data.load("digits").first(8)
    with torch.no_grad():
        samples = replace(samples, labels=module(samples.images).argmax(dim=1))
    outcome = evaluate(candidate, samples, settings, Store(tmp_path), SilentObserver())
    assert outcome.summary.autoattack_accuracy is None
    (flag,) = (flag for flag in outcome.summary.flags if flag.name == "attacks-skipped")
    assert flag.measured == "apgd-ce, apgd-t, fab-t"


class _Cut(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.module(images.detach())
        return logits


@pytest.mark.parametrize(
    "change",
    [
        lambda _, logits: (logits, logits),
        lambda _, logits: logits[:, :-1],
        lambda _, logits: logits.long(),
        lambda _, logits: logits / 0,
        lambda _, logits: logits.squeeze(0),  # drops the dimension of a single image
    ],
)
def test_unusable_logits_are_refused(change: Callable[[Tensor, Tensor], Tensor]) -> None:
    with pytest.raises(InputError, match="expected logits"):
        _raised(Answer(change).eval())


def _attacks(before: float, after: float) -> list[AttackSummary]:
    return [
        AttackSummary(
            name=name,
            attempted=0,
            broken=0,
            accuracy_after=accuracy,
            seconds=0,
            forward_passes=0,
            backward_passes=0,
        )
        for name, accuracy in (("fab-t", before), ("square", after))
    ]


@pytest.mark.parametrize(
    ("n", "broken", "raised"), [(360, 1, False), (360, 3, False), (360, 4, True), (10000, 40, True)]
)
def test_square_must_beat_gradients_beyond_chance(n: int, broken: int, raised: bool) -> None:
    flag = flags.square_beats_gradients(_attacks(0.5, 0.5 - broken / n), n)
    assert (flag is not None) == raised
