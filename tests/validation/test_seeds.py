"""A seed that keys no draws is refused before anything begins, wherever it is given."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch import nn

import bench
from bench.cli import main
from bench.errors import InputError
from bench.training.run import run as train
from bench.validation.seeds import LARGEST_SEED, check_seed

IMAGES, LABELS = torch.rand(4, 1, 8, 8), torch.arange(4)
IN_HAND = {"images": IMAGES, "labels": LABELS, "threat_model": bench.Linf(0.05)}
MODEL = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


def test_the_largest_seed_is_allowed() -> None:
    check_seed(LARGEST_SEED)


@pytest.mark.parametrize(
    "call",
    [
        lambda seed, root: bench.evaluate(MODEL, **IN_HAND, seed=seed, results_dir=root),
        lambda seed, root: bench.RobustnessMonitor(**IN_HAND, seed=seed),
        lambda seed, root: bench.audit(
            "digits-robust", {"robust": 40}, "digits-linf", out=root, seed=seed
        ),
        lambda seed, root: train("clean", "digits-clean", None, root / "out", seed=seed),
    ],
    ids=["evaluate", "monitor", "audit", "train"],
)
def test_a_larger_seed_is_refused_in_python(
    call: Callable[[int, Path], object], tmp_path: Path
) -> None:
    with pytest.raises((InputError, ValueError), match=rf"seed: expected .*{LARGEST_SEED}"):
        call(LARGEST_SEED + 1, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["run", "audit", "train", "sweep"])
def test_a_larger_seed_is_refused_by_commands(name: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, [name, "--seed", str(LARGEST_SEED + 1)])
    assert result.exit_code == 2
    assert f"0<=x<={LARGEST_SEED}" in result.output
