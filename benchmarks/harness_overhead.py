"""What the harness costs beside pyautoattack alone, in one run.

    python benchmarks/harness_overhead.py --candidate digits-robust --n-examples 60

Both attack the same samples with the same seed and batch size, in turn; loading and start-up are
left out. The harness's own time holds its clean predictions, its records on disk and its summary,
pyautoattack's its own checks. `--repeat` runs the pair several times; medians are printed. The
flags of both are compared too.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import click
import torch

from bench import data
from bench.candidates.registry import find_candidates
from bench.executors.progress import Progress
from bench.runs.session import evaluate
from bench.runs.settings import Settings
from bench.store import Store
from bench.suites import load_suite


class _Silent:
    def progress(self, progress: Progress) -> None:
        """Nothing is shown."""

    def notice(self, text: str) -> None:
        """Nothing is shown."""


@click.command()
@click.option("--suite", "suite_name", default="digits-linf", show_default=True)
@click.option("--candidate", default="digits-robust", show_default=True)
@click.option("--n-examples", default=60, show_default=True)
@click.option("--batch-size", default=250, show_default=True)
@click.option("--repeat", default=3, show_default=True)
@click.option("--data-dir", type=click.Path(path_type=Path), envvar="BENCH_DATA_DIR")
def main(
    suite_name: str,
    candidate: str,
    n_examples: int,
    batch_size: int,
    repeat: int,
    data_dir: Path | None,
) -> None:
    """Print both times and their ratio."""
    suite = load_suite(suite_name)
    (reference,) = find_candidates([candidate], suite)
    loaded = reference.load()
    samples = data.load_source(suite.data, data_dir, n_examples)
    settings = Settings(suite, engine="reference", batch_size=batch_size, n_examples=n_examples)
    alone, harness = [], []
    for round_number in range(repeat):
        seconds, robust = _alone(loaded.module, samples, settings)
        alone.append(seconds)
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            outcome = evaluate(loaded, samples, settings, Store(Path(folder)), _Silent())
            harness.append(time.perf_counter() - start)
            flags = outcome.folder.samples()["robust"].to_numpy(dtype=bool)
        same = "equal" if (flags == robust.numpy()).all() else "DIFFERENT"
        ratio = harness[-1] / alone[-1]
        click.echo(
            f"round {round_number + 1}: pyautoattack {alone[-1]:.2f} s, "
            f"harness {harness[-1]:.2f} s, ratio {ratio:.3f}, flags {same}"
        )
    ratios = [ours / theirs for ours, theirs in zip(harness, alone, strict=True)]
    click.echo(
        f"median: pyautoattack {statistics.median(alone):.2f} s, "
        f"harness {statistics.median(harness):.2f} s, ratio {statistics.median(ratios):.3f}"
    )


def _alone(
    module: torch.nn.Module, samples: data.Dataset, settings: Settings
) -> tuple[float, torch.Tensor]:
    """Seconds of pyautoattack alone, and which (N,) samples stood."""
    from pyautoattack import AutoAttack

    threat = settings.suite.threat_model
    with torch.random.fork_rng():
        start = time.perf_counter()
        adversary = AutoAttack(module, norm=threat.norm, eps=threat.eps, seed=settings.seed)
        images, _ = adversary.run_standard_evaluation(
            samples.images, samples.labels, batch_size=settings.batch_size or 250
        )
        seconds = time.perf_counter() - start
    with torch.no_grad():
        return seconds, module(images).argmax(dim=1) == samples.labels


if __name__ == "__main__":
    main()
