"""The examples of the documentation run, and print what they promise."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image

EXAMPLES = Path(__file__).parent.parent / "examples"


def _run(script: str, *arguments: str) -> str:
    """Return what an example prints."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / script), *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_certify(tmp_path: Path) -> None:
    printed = _run(
        "certify.py",
        *("--n-examples", "8", "--noise-samples", "150", "--results-dir", str(tmp_path)),
    )
    shares = [float(each) for each in re.findall(r"at L2 radius .*: ([\d.]+)%", printed)]
    assert len(shares) == 4
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > 50


def test_mix_tradeoff(tmp_path: Path) -> None:
    plot = tmp_path / "curve.png"
    printed = _run(
        "mix_tradeoff.py",
        *("--n-examples", "8", "--alphas", "0,1", "--results-dir", str(tmp_path)),
        *("--plot", str(plot)),
    )
    rows = re.findall(r"([\d.]+) +([\d.]+)% +([\d.]+)%", printed)
    assert [float(alpha) for alpha, _, _ in rows] == [0, 1]
    assert float(rows[0][2]) < float(rows[1][2])
    assert plot.stat().st_size > 0


def test_monitor_training() -> None:
    printed = _run("monitor_training.py", "--epochs", "3", "--n-examples", "64")
    clean, attacked = (
        [float(each) for each in re.findall(r"robust ([\d.]+)%", part)]
        for part in printed.split("trained on adversarial images")
    )
    assert len(clean) == len(attacked) == 3
    assert clean[-1] < attacked[-1]


def test_evaluate_timm_model(tmp_path: Path) -> None:
    checkpoint = _photos_and_checkpoint(tmp_path)
    printed = _run(
        "evaluate_timm_model.py",
        *(str(tmp_path / "photos"), "--model", MODEL, "--checkpoint", str(checkpoint)),
        *("--classes", "2", "--size", "32", "--eps", "64", "--results-dir", str(tmp_path / "r")),
    )
    assert "clean accuracy 100.0%" in printed
    assert "robust accuracy at most" in printed
    assert "random weights" not in printed


MODEL = "test_efficientnet"


def _photos_and_checkpoint(folder: Path) -> Path:
    """Write dark and light photos, and a timm model that tells them apart."""
    draws = np.random.default_rng(0)
    for label, level in enumerate((60, 190)):
        (folder / "photos" / str(label)).mkdir(parents=True)
        for number in range(3):
            pixels = level + draws.integers(-30, 30, (32, 32, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(
                folder / "photos" / str(label) / f"{number}.png"
            )
    torch.manual_seed(0)
    network = timm.create_model(MODEL, num_classes=2).eval()
    images = torch.rand(64, 3, 32, 32) * 0.2
    labels = torch.arange(64) % 2
    images += 0.15 + 0.5 * labels.view(-1, 1, 1, 1)
    with torch.no_grad():
        features = network.forward_head(network.forward_features(images), pre_logits=True)
    head = network.get_classifier()
    assert isinstance(head, torch.nn.Linear)
    with torch.no_grad():
        direction = features[labels == 1].mean(0) - features[labels == 0].mean(0)
        scale = 20 / direction.square().sum()
        head.weight.copy_(torch.stack([-direction, direction]) * scale)
        middle = features.mean(0) @ direction * scale
        head.bias.copy_(torch.stack([middle, -middle]))
    torch.save({"state_dict": network.state_dict()}, folder / "model.pth.tar")
    return folder / "model.pth.tar"
