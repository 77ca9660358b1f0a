"""Ten runs with faults at random moments; a hundred are in `benchmarks/faults.py`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "faults.py"


@pytest.mark.parametrize(
    ("runs", "ray_share"),
    [(10, 0.0), pytest.param(30, 1.0, marks=pytest.mark.slow)],
    ids=["ten", "thirty-on-ray"],
)
def test_records_are_those_of_undisturbed_runs(tmp_path: Path, runs: int, ray_share: float) -> None:
    pytest.importorskip("ray")
    table = tmp_path / "faults.txt"
    command = [sys.executable, str(SCRIPT), "--runs", str(runs), "--out", str(table)]
    done = subprocess.run(
        [*command, "--ray-share", str(ray_share)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"\nall{'':<22}{runs:>6}" in table.read_text()
