"""Fixtures shared by all tests: small candidates that need no download."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import nn

from bench import data

LINEAR_CODE = """
from torch import nn


def linear(scale=1.0):
    layer = nn.Linear(64, 10)
    layer.scale = scale
    return nn.Sequential(nn.Flatten(), layer)
"""


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Tiny networks lose time on a second thread."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder with the CIFAR files."""
    folder = os.environ.get("BENCH_DATA_DIR")
    if not folder or not (Path(folder) / "cifar-10-batches-py").is_dir():
        pytest.skip("BENCH_DATA_DIR does not name a folder with the CIFAR files")
    return Path(folder)


@pytest.fixture(scope="session")
def linear_digits() -> nn.Module:
    """A linear classifier of the digits, about 95% right, by least squares on the training half."""
    train = data.load("digits", "train")
    features = torch.cat([train.images.flatten(1), torch.ones(len(train), 1)], dim=1).double()
    targets = nn.functional.one_hot(train.labels, 10).double()
    penalty = 1e-1 * torch.eye(features.shape[1], dtype=torch.float64)
    solution = torch.linalg.solve(features.T @ features + penalty, features.T @ targets).float()
    layer = nn.Linear(64, 10)
    with torch.no_grad():
        layer.weight.copy_(10 * solution[:-1].T)
        layer.bias.copy_(10 * solution[-1])
    return nn.Sequential(nn.Flatten(), layer).eval()


@pytest.fixture
def write_submission(tmp_path: Path, linear_digits: nn.Module) -> Callable[..., Path]:
    """Writes a submission of the linear digits classifier; keywords change its fields."""

    def write(name: str = "linear", **changes: object) -> Path:
        folder = tmp_path / "submissions" / name
        folder.mkdir(parents=True)
        (folder / "model.py").write_text(LINEAR_CODE)
        save_file(linear_digits.state_dict(), folder / "weights.safetensors")
        digest = hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()
        fields = {
            "name": name,
            "dataset": "digits",
            "architecture": "model:linear",
            "weights": "weights.safetensors",
            "sha256": digest,
        } | changes
        kept = {key: value for key, value in fields.items() if value is not None}
        (folder / "submission.yaml").write_text(yaml.safe_dump(kept))
        return folder

    return write
