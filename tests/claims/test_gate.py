"""Nothing is attacked whose clean accuracy contradicts what is published about it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from bench.candidates import Candidate
from bench.candidates.candidate import Information
from bench.data import Dataset
from bench.errors import EvaluationError
from bench.runs.session import RunResult, evaluate
from bench.runs.settings import Settings
from bench.store import Store
from bench.suites import load_suite
from tests.silent import SilentObserver

CLAIM = "Wang2023Better_WRN-70-16"  # 75.22% clean
N = 200


class _Pixel(nn.Module):
    """Says what the first pixel says: class = round(100 * pixel)."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        classes = torch.arange(100, device=images.device)
        return -((100 * images.flatten(1)[:, :1] - classes) ** 2)


def _dataset(right: int) -> Dataset:
    """Images that tell their label in the first pixel, `right` of them the truth."""
    labels = torch.arange(N) % 100
    images = torch.zeros(N, 3, 4, 4)
    images[:, 0, 0, 0] = torch.where(torch.arange(N) < right, labels, (labels + 50) % 100) / 100
    names = tuple(map(str, range(100)))
    return Dataset("cifar100", images, labels, torch.arange(N), names, 10_000)


def _run(right: int, root: Path, allowed: bool = False) -> tuple[RunResult, SilentObserver]:
    suite = load_suite("cifar100-linf")
    cheap = suite.protocol("standard").attacks[0].model_copy(update={"parameters": {"steps": 1}})
    protocol = suite.protocol("standard").model_copy(update={"attacks": (cheap,)})
    settings = Settings(
        suite.model_copy(update={"protocols": {"standard": protocol}}),
        engine="fast",
        n_examples=N,
        allow_clean_mismatch=allowed,
    )
    candidate = Candidate("pixel", _Pixel(), {}, "", Information(claim=CLAIM))
    observer = SilentObserver()
    outcome = evaluate(candidate, _dataset(right), settings, Store(root), observer)
    return outcome, observer


def test_a_contradiction_stops_before_any_attack_and_can_be_overruled(tmp_path: Path) -> None:
    with pytest.raises(
        EvaluationError, match=r"75\.22% as published .* got 50\.00% on 200"
    ) as error:
        _run(100, tmp_path)
    assert "wrong normalization" in str(error.value)
    (folder,) = Store(tmp_path).runs()
    assert [path.name for path in (folder.path / "parts").iterdir()] == ["00-clean-00000.npz"]
    with pytest.raises(EvaluationError):  # nor on the next try, from the blocks that are there
        _run(100, tmp_path)
    outcome, _ = _run(100, tmp_path, allowed=True)
    assert outcome.summary.clean_accuracy == 0.5


def test_chance_passes(tmp_path: Path) -> None:
    outcome, _ = _run(140, tmp_path)
    assert outcome.summary.clean_accuracy == 0.7
