"""Peak memory and time of the fast engine by number of images: flat and linear.

    python benchmarks/memory.py --data-dir D

Each size runs in a process of its own, with few attack steps: what is measured is what the engine
keeps beside the network and its batch. The bar: 10,000 images take less than 1.5 GB more than the
process before it has the images. What the engine's processes share is counted for each of them.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import click
import torch

from bench import data
from bench.candidates.registry import find_candidates
from bench.runs.session import make_plan
from bench.runs.settings import Settings
from bench.suites import load_suite
from bench.suites.suite import AttackChoice

NETWORK = Path(__file__).parent / "networks" / "residual-relu"
ATTACKS = (
    AttackChoice(name="apgd-ce", parameters={"steps": 5}),
    AttackChoice(name="square", parameters={"queries": 20}),
)
LIMIT = 1.5e9
SIZES = (1_000, 3_000, 10_000)


@click.command()
@click.option("--data-dir", type=click.Path(path_type=Path), envvar="BENCH_DATA_DIR")
@click.option("--size", type=int, help="Measure one size in this process.")
def main(data_dir: Path | None, size: int | None) -> None:
    """Print peak memory beyond the start, and seconds; exit code 1 above the limit."""
    if size is not None:
        click.echo(_measure(size, data_dir))
        return
    click.echo(f"{'images':>8}{'peak MB':>10}{'seconds':>10}{'ms an image':>13}")
    worst = 0.0
    for each in SIZES:
        command = [sys.executable, "-W", "ignore", __file__, "--size", str(each)]
        command += ["--data-dir", str(data_dir)] if data_dir else []
        memory, seconds = map(float, subprocess.check_output(command, text=True).split())
        worst = max(worst, memory)
        click.echo(f"{each:>8,}{memory / 1e6:>10.0f}{seconds:>10.1f}{1000 * seconds / each:>13.2f}")
    sys.exit(0 if worst < LIMIT else 1)


def _measure(size: int, data_dir: Path | None) -> str:
    suite = load_suite("cifar10-linf")
    (reference,) = find_candidates([str(NETWORK)], suite)
    candidate = reference.load()
    candidate.module(torch.rand(128, 3, 32, 32))
    before = _peak()
    settings = Settings(suite, engine="fast", n_examples=size)
    samples = data.load_source(suite.data, data_dir, size)
    plan = make_plan(candidate, samples, settings)
    task = replace(plan.task, attacks=ATTACKS)
    start = time.perf_counter()
    plan.kind.join(list(plan.engine.run(task, {}, lambda _: None)))
    seconds = time.perf_counter() - start
    child = max(0, _peak(resource.RUSAGE_CHILDREN) - before)
    return f"{_peak() - before + torch.get_num_threads() * child} {seconds}"


def _peak(who: int = resource.RUSAGE_SELF) -> int:
    """Bytes; of children the largest one's."""
    return 1024 * resource.getrusage(who).ru_maxrss


if __name__ == "__main__":
    main()
