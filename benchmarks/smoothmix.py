"""SmoothMix beside Gaussian augmentation: several seeds each, same network, epochs and sigma.

Trains each recipe with each seed, certifies what comes of it, and writes the means and standard
deviations to `benchmarks/results/smoothmix-<dataset>.json`. Killed and started again, it goes on
where it was: trainings from their checkpoints, certifications from their blocks, all kept under
`--work`:

    python benchmarks/smoothmix.py --dataset digits --noise-samples 2000
    python benchmarks/smoothmix.py --dataset cifar10 --suffix -resnet20 --every 20 --seeds 1 \\
        --set sigma=0.5 --set epochs=15 --set decay_every=5 --noise-samples 1000
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor, nn

import bench.training
from bench.candidates.registry import find_candidates
from bench.data import load_source
from bench.executors.progress import Progress
from bench.formatting import percent
from bench.runs.session import Settings, evaluate
from bench.store import Store
from bench.store.summary import CertifiedSummary, Summary
from bench.suites import load_suite
from bench.training import SmoothingSettings, override
from bench.training.recipes import gaussian, smoothmix
from bench.training.smoothing import noisy_batch

LOSSES: dict[str, Any] = {"gaussian": gaussian.loss, "smoothmix": smoothmix.loss}
RECIPES = tuple(LOSSES)
RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Result:
    """One recipe with one seed."""

    recipe: str
    seed: int
    sigma: float
    epochs: int
    passes_an_image: int
    training_seconds: float
    average_certified_radius: float
    clean_accuracy: float
    accuracy_at_radius: dict[str, float]
    abstained: float
    examples: int
    noise_samples: float | None


class _Silent:
    """Tells nothing of a certification."""

    def progress(self, progress: Progress) -> None:
        """Nothing."""

    def notice(self, text: str) -> None:
        """Nothing."""


class _Counting(nn.Module):
    """A linear network that counts the images which pass through it."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        self.images = 0

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, K)."""
        self.images += len(images)
        logits: Tensor = self.network(images)
        return logits


def passes_an_image(recipe: str, settings: SmoothingSettings) -> int:
    """Forward passes, each with its backward pass, that a step makes for each of its images."""
    network, batch = _Counting(), 4
    images, labels = torch.full((batch, 1, 8, 8), 0.5), torch.zeros(batch, dtype=torch.int64)
    generator = torch.Generator().manual_seed(0)
    LOSSES[recipe](settings, noisy_batch(settings, network, images, labels, generator, 0))
    return network.images // batch


def measure(
    dataset: str,
    recipe: str,
    suffix: str,
    seed: int,
    overrides: dict[str, str],
    noise_samples: int,
    every: int,
    work: Path,
    device: str,
) -> Result:
    """Train and certify, or take what is finished."""
    preset = bench.training.preset_for(recipe, dataset) + suffix
    folder = work / "submissions" / f"{preset}-seed{seed}"
    written = bench.training.run(
        recipe, preset, None, folder, seed, overrides, resume=True, device=device
    )
    suite = load_suite(f"{dataset}-l2")
    (reference,) = find_candidates([str(folder)], suite)
    data = load_source(suite.data)
    settings = Settings(
        suite=suite,
        protocol="certified",
        noise_samples=noise_samples,
        every=every,
        device=torch.device(device),
    )
    store = Store(work / "results")
    selected = data.every(every) if every > 1 else data
    summary = evaluate(reference.load(), selected, settings, store, _Silent()).summary
    chosen = override(bench.training.presets()[preset].settings, overrides)
    assert isinstance(chosen, SmoothingSettings)
    return _result(recipe, seed, chosen, summary, float(written.training["seconds"]))


def _result(
    recipe: str, seed: int, settings: SmoothingSettings, summary: Summary, seconds: float
) -> Result:
    assert isinstance(summary, CertifiedSummary)
    certified = summary
    return Result(
        recipe=recipe,
        seed=seed,
        sigma=settings.sigma,
        epochs=settings.epochs,
        passes_an_image=passes_an_image(recipe, settings),
        training_seconds=seconds,
        average_certified_radius=certified.certified.average_certified_radius,
        clean_accuracy=summary.clean_accuracy,
        accuracy_at_radius=certified.certified.accuracy_at_radius,
        abstained=certified.certified.abstained,
        examples=summary.n_examples,
        noise_samples=certified.certified.mean_noise_samples,
    )


def table(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Mean and standard deviation over seeds of each recipe."""
    rows = []
    for recipe in RECIPES:
        own = [result for result in results if result.recipe == recipe]
        if not own:
            continue
        radii = [result.average_certified_radius for result in own]
        at_half = [result.accuracy_at_radius["0.50"] for result in own]
        clean = [result.clean_accuracy for result in own]
        rows.append(
            {
                "recipe": recipe,
                "seeds": len(own),
                "acr": _mean_and_deviation(radii),
                "clean_accuracy": _mean_and_deviation(clean),
                "accuracy_at_0.50": _mean_and_deviation(at_half),
                "passes_an_image_and_epoch": own[0].passes_an_image,
                "training_seconds": _mean_and_deviation([each.training_seconds for each in own]),
            }
        )
    return rows


def _mean_and_deviation(values: Sequence[float]) -> dict[str, float | None]:
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.mean(values), "standard_deviation": deviation}


@click.command()
@click.option("--dataset", type=click.Choice(["digits", "cifar10"]), default="digits")
@click.option("--suffix", default="", help="Of the presets, such as -resnet20.")
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--noise-samples", type=int, default=2_000, show_default=True)
@click.option("--every", type=click.IntRange(1), default=1, show_default=True)
@click.option("--set", "assignments", multiple=True, help="A setting of both, KEY=VALUE.")
@click.option("--device", default="cpu", show_default=True)
@click.option("--work", type=click.Path(path_type=Path), default=RESULTS / "work")
def main(
    dataset: str,
    suffix: str,
    seeds: int,
    noise_samples: int,
    every: int,
    assignments: tuple[str, ...],
    device: str,
    work: Path,
) -> None:
    """Print each result as it comes, and write the table."""
    overrides = dict(text.split("=", 1) for text in assignments)
    results = []
    for seed in range(seeds):
        for recipe in RECIPES:
            result = measure(
                dataset, recipe, suffix, seed, overrides, noise_samples, every, work, device
            )
            results.append(result)
            click.echo(
                f"{recipe} seed {seed}: ACR {result.average_certified_radius:.3f}, clean "
                f"{percent(result.clean_accuracy)}, certified at 0.5 "
                f"{percent(result.accuracy_at_radius['0.50'])}, {result.passes_an_image} passes an "
                f"image, trained in {result.training_seconds:.0f} s"
            )
            content = {"results": [vars(each) for each in results], "table": table(results)}
            path = RESULTS / f"smoothmix-{dataset}{suffix}.json"
            path.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
