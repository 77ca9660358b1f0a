"""The pytest plugin, as a project's own tests use it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bench.errors import InputError
from bench.testing.robustness import Robustness

pytest_plugins = ["pytester"]

PROJECT = """
import torch
from torch import nn
import bench

def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()

IMAGES = torch.rand(24, 1, 8, 8, generator=torch.Generator().manual_seed(1))
with torch.no_grad():
    LABELS = network()(IMAGES).argmax(dim=1)
DATA = dict(images=IMAGES, labels=LABELS, threat_model=bench.Linf(0.3))

def test_robust(robustness):
    robustness.at_least(network(), accuracy=0.9, **DATA)

def test_clean(robustness):
    assert robustness.clean_at_least(network(), accuracy=1.0, **DATA).reused

def test_a_percentage(robustness):
    robustness.at_least(network(), accuracy=90, **DATA)
"""


def test_a_project_is_told_what_broke_and_how_to_see_it_again(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(PROJECT)
    result = pytester.runpytest_subprocess()
    result.assert_outcomes(passed=1, failed=2)
    result.stdout.fnmatch_lines(
        [
            "*expected a robust accuracy of at least 90.00%, got *% ?* on 24 samples; "
            "apgd-ce broke most, * of 24*",
            "*again: bench.evaluate(model, images=images, labels=labels, threat_model=*)",
            "*run: *",
            "*accuracy: expected a number in ?0, 1?, got 90; did you mean 0.9?*",
        ]
    )


def test_pytest_starts_without_torch(tmp_path: Path) -> None:
    (tmp_path / "test_nothing.py").write_text("def test_nothing():\n    pass\n")
    (tmp_path / "conftest.py").write_text(
        "import sys\ndef pytest_sessionfinish():\n    assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


def test_certificates_are_asked_for(tmp_path: Path) -> None:
    robustness = Robustness(tmp_path)
    options = {"n_examples": 8, "noise_samples": 150, "eps": 0.25}
    robustness.certified_at_least("digits-smoothmix", "digits-l2", 0.2, **options)
    with pytest.raises(AssertionError, match=r"certified at radius 0\.5, got"):
        robustness.certified_at_least(
            "digits-smoothmix", "digits-l2", 1.0, **(options | {"eps": 0.5})
        )
    with pytest.raises(InputError, match="accuracy: expected a number"):
        robustness.at_least("digits-smoothmix", "digits-l2")
