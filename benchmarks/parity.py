"""Whether the fast engine is as strong as the reference: robust accuracies side by side.

    python benchmarks/parity.py --n-examples 1000 --seeds 3

Both engines attack the same real images of each network in benchmarks/networks/ with each seed. The
bars, for each precision that is offered: the paired difference of robust accuracy stays within 0.3
points in every run, and its mean over all runs within 0.1 points. Every run is kept in
benchmarks/results/parity.jsonl as it ends, and is not done again; the table is made of what is
there, so an interrupted comparison goes on where it stopped.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import torch

from bench import data
from bench.candidates.registry import find_candidates
from bench.engines.acceleration import PRECISIONS
from bench.runs import environment
from bench.runs.session import make_plan
from bench.runs.settings import Settings
from bench.suites import load_suite

HERE = Path(__file__).parent
NETWORKS = HERE / "networks"
RESULTS = HERE / "results" / "parity.jsonl"
LARGEST_DIFFERENCE = 0.003
LARGEST_MEAN_DIFFERENCE = 0.001
REFERENCE = "reference"


@dataclass(frozen=True)
class Case:
    """One network under one radius.

    Attributes:
        eps: in units of 1/255. Radii are such that part of the samples stands and part breaks.
    """

    network: str
    suite: str
    eps: int


CASES = (
    Case("residual-relu", "cifar10-linf", 16),
    Case("residual-gelu", "cifar100-linf", 8),
    Case("residual-silu", "cifar10-linf", 16),
)


@click.command()
@click.option("--n-examples", default=1000, show_default=True)
@click.option("--seeds", default=3, show_default=True, help="How many, from 0 on.")
@click.option("--precision", "precisions", multiple=True, default=PRECISIONS, show_default=True)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--data-dir", type=click.Path(path_type=Path), envvar="BENCH_DATA_DIR")
def main(
    n_examples: int, seeds: int, precisions: tuple[str, ...], device: str, data_dir: Path | None
) -> None:
    """Run what is missing, print the table; exit code 1 if a bar is missed."""
    if device == "cpu":  # a processor has no TF32: it would be float32 once more
        precisions = tuple(name for name in precisions if name != "tf32")
    done = _read()
    for seed in range(seeds):
        for case in CASES:
            for engine in (REFERENCE, *precisions):
                key = _key(case, engine, seed, n_examples, device)
                if key not in done:
                    done[key] = _measure(case, engine, seed, n_examples, device, data_dir)
                    _keep(key, done[key])
                    click.echo(f"{key}: {100 * _accuracy(done[key]):.2f}%", err=True)
    passed = True
    for precision in precisions:
        passed &= _judge(precision, seeds, n_examples, device, done)
    sys.exit(0 if passed else 1)


def _key(case: Case, engine: str, seed: int, n: int, device: str) -> str:
    return f"{case.network} {case.eps}/255 {engine} seed {seed} n {n} {device}"


def _measure(
    case: Case, engine_name: str, seed: int, n: int, device: str, data_dir: Path | None
) -> dict[str, Any]:
    suite = load_suite(case.suite)
    (reference,) = find_candidates([str(NETWORKS / case.network)], suite)
    is_reference = engine_name == REFERENCE
    settings = Settings(
        suite,
        engine=REFERENCE if is_reference else "fast",
        precision=None if is_reference else engine_name,
        seed=seed,
        device=torch.device(device),
        n_examples=n,
        eps=case.eps / 255,
    )
    samples = data.load_source(suite.data, data_dir, n)
    plan = make_plan(reference.load(), samples, settings)
    start = time.perf_counter()
    tables = plan.kind.join(list(plan.engine.run(plan.task, {}, lambda _: None)))
    return {
        "robust": "".join("1" if robust else "0" for robust in tables.samples["robust"]),
        "seconds": time.perf_counter() - start,
        "environment": environment.describe(settings.device),
    }


def _judge(
    precision: str, seeds: int, n: int, device: str, done: dict[str, dict[str, Any]]
) -> bool:
    """Print the rows of a precision; whether it keeps both bars."""
    click.echo(f"\nfast in {precision}, {n} images: robust accuracy in percent")
    click.echo(
        f"{'network':<15}{'eps':>8}{'seed':>6}{'reference':>11}{'fast':>8}{'difference':>12}"
    )
    differences = []
    for case in CASES:
        for seed in range(seeds):
            theirs = _accuracy(done[_key(case, REFERENCE, seed, n, device)])
            ours = _accuracy(done[_key(case, precision, seed, n, device)])
            differences.append(ours - theirs)
            click.echo(
                f"{case.network:<15}{f'{case.eps}/255':>8}{seed:>6}{100 * theirs:>11.2f}"
                f"{100 * ours:>8.2f}{100 * differences[-1]:>+12.2f}"
            )
    largest, mean = max(map(abs, differences)), statistics.fmean(differences)
    passed = largest <= LARGEST_DIFFERENCE + 1e-9 and abs(mean) <= LARGEST_MEAN_DIFFERENCE + 1e-9
    click.echo(
        f"largest {100 * largest:.2f} (bar {100 * LARGEST_DIFFERENCE:.1f}), mean "
        f"{100 * mean:+.3f} (bar {100 * LARGEST_MEAN_DIFFERENCE:.1f}): "
        f"{'passed' if passed else 'MISSED'}"
    )
    return passed


def _accuracy(row: dict[str, Any]) -> float:
    robust: str = row["robust"]
    return robust.count("1") / len(robust)


def _read() -> dict[str, dict[str, Any]]:
    if not RESULTS.exists():
        return {}
    rows = [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines()]
    return {row.pop("key"): row for row in rows}


def _keep(key: str, row: dict[str, Any]) -> None:
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"key": key, **row}) + "\n")


if __name__ == "__main__":
    main()
