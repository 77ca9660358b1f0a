"""A user's program passes a strict type check against the package."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import bench

PROGRAM = """
from __future__ import annotations

import pandas as pd
import torch
from torch import nn

import bench


def main(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    found = bench.evaluate(model, "cifar10-linf", n_examples=100, sample="random")
    other = bench.evaluate(
        lambda x: model(x), images=images, labels=labels, threat_model=bench.Linf(8 / 255)
    )
    table: pd.DataFrame = found.samples
    adversarial, indices = found.adversarial_images()
    print(len(table), adversarial.shape, indices.tolist(), found.interval.low)
    print(found.compare(other).p_value, [flag.name for flag in found.flags])
    bench.certify(model, sigma=0.25).plot().set_title("certified")
    bench.sweep(model, "cifar10-robust", alphas=[0.5])
    try:
        found.save("run.bench")
    except bench.errors.InputError as error:
        print(error)
    results: pd.DataFrame = bench.results()
    print(results, bench.load("cifar10-linf/my-model").verify().is_confirmed)
    return found.robust_accuracy
"""


def test_a_small_program_passes_a_strict_check(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    assert pytestconfig.cache is not None
    # Only what the program itself does wrong counts: the package is checked on its own.
    options = ["--strict", "--follow-imports", "silent", "--python-executable", sys.executable]
    options += ["--cache-dir", str(pytestconfig.cache.mkdir("mypy"))]
    command = [sys.executable, "-m", "mypy", *options, str(program)]
    home = Path(bench.__file__).parents[1]
    # mypy does not see packages that are installed in place.
    place = {} if home.name == "site-packages" else {"MYPYPATH": str(home)}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=tmp_path, env=os.environ | place
    )
    assert done.returncode == 0, done.stdout + done.stderr
