"""SmoothMix beside Gaussian augmentation and consistency: several seeds, same network and sigma.

Trains each recipe with each seed, certifies what comes of it, and writes the means and standard
deviations to `benchmarks/results/smoothmix-<dataset><suffix>.json`. Killed and started again, it
goes on where it was: trainings from their checkpoints, certifications from their blocks, all kept
under `--work`:

    python benchmarks/smoothmix.py --dataset digits --noise-samples 2000
    python benchmarks/smoothmix.py --dataset cifar10 --suffix -resnet20-short --every 20 \\
        --noise-samples 2000 --procedure sequential --precision bfloat16

All train for the same number of epochs. `--equal-cost` trains the others a second time, for as many
epochs as make as many passes as SmoothMix's.
"""

from __future__ import annotations

import itertools
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
from bench.runs.session import evaluate
from bench.runs.settings import PROCEDURES, Settings
from bench.store import Store
from bench.store.summary import CertifiedSummary
from bench.suites import load_suite
from bench.training import SmoothingSettings, override
from bench.training.recipes import consistency, gaussian, smoothmix
from bench.training.smoothing import noisy_batch

LOSSES: dict[str, Any] = {
    "gaussian": gaussian.loss,
    "smoothmix": smoothmix.loss,
    "consistency": consistency.loss,
}
EQUAL_EPOCHS, EQUAL_COST = "equal epochs", "equal cost"
RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Result:
    """One recipe with one seed."""

    recipe: str
    schedule: str
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


@dataclass(frozen=True)
class Plan:
    """What all trainings and certifications have in common.

    Attributes:
        dataset: Its name.
        suffix: Of the presets, such as -resnet20.
        overrides: Settings that differ from the presets'.
        noise_samples: Draws of a certification.
        every: Certify each test image whose index is a multiple of it.
        procedure: Of a certification: fixed or sequential.
        precision: Of the classifier that is certified; None for float32.
        device: As torch names it.
        work: Folder of submissions and records.
    """

    dataset: str
    suffix: str
    overrides: dict[str, str]
    noise_samples: int
    every: int
    procedure: str
    precision: str | None
    device: str
    work: Path

    def preset(self, recipe: str) -> str:
        """Return the name of a recipe's preset."""
        return bench.training.preset_for(recipe, self.dataset) + self.suffix

    def settings(self, recipe: str, overrides: dict[str, str]) -> SmoothingSettings:
        """Return the settings of a recipe."""
        chosen = override(bench.training.presets()[self.preset(recipe)].settings, overrides)
        assert isinstance(chosen, SmoothingSettings)
        return chosen

    def overrides_at(self, schedule: str, recipe: str) -> dict[str, str]:
        """Return what differs from a recipe's preset, so that its cost is SmoothMix's if asked."""
        own = self.settings(recipe, self.overrides)
        factor = passes_an_image("smoothmix", self.settings("smoothmix", self.overrides))
        factor //= passes_an_image(recipe, own)
        if schedule == EQUAL_EPOCHS or factor == 1:
            return self.overrides
        longer = {"epochs": own.epochs * factor, "decay_every": own.decay_every * factor}
        return {**self.overrides, **{key: str(value) for key, value in longer.items()}}


def measure(plan: Plan, recipe: str, seed: int, schedule: str) -> Result:
    """Train and certify, or take what is finished."""
    preset = plan.preset(recipe)
    end = "-equal-cost" if schedule == EQUAL_COST else ""
    folder = plan.work / "submissions" / f"{preset}-seed{seed}{end}"
    overrides = plan.overrides_at(schedule, recipe)
    written = bench.training.run(
        recipe, preset, None, folder, seed, overrides, resume=True, device=plan.device
    )
    suite = load_suite(f"{plan.dataset}-l2")
    (reference,) = find_candidates([str(folder)], suite)
    data = load_source(suite.data)
    settings = Settings(
        suite=suite,
        protocol="certified",
        noise_samples=plan.noise_samples,
        every=plan.every,
        procedure=plan.procedure,
        precision=plan.precision,
        device=torch.device(plan.device),
    )
    selected = data.every(plan.every) if plan.every > 1 else data
    store = Store(plan.work / "results")
    summary = evaluate(reference.load(), selected, settings, store, _Silent()).summary
    assert isinstance(summary, CertifiedSummary)
    chosen, certified = plan.settings(recipe, overrides), summary.certified
    return Result(
        recipe=recipe,
        schedule=schedule,
        seed=seed,
        sigma=chosen.sigma,
        epochs=chosen.epochs,
        passes_an_image=passes_an_image(recipe, chosen),
        training_seconds=float(written.training["seconds"]),
        average_certified_radius=certified.average_certified_radius,
        clean_accuracy=summary.clean_accuracy,
        accuracy_at_radius=certified.accuracy_at_radius,
        abstained=certified.abstained,
        examples=summary.n_examples,
        noise_samples=certified.mean_noise_samples,
    )


def table(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Mean and standard deviation over seeds of each recipe on each schedule."""
    rows = []
    for recipe, schedule in dict.fromkeys((each.recipe, each.schedule) for each in results):
        own = [each for each in results if (each.recipe, each.schedule) == (recipe, schedule)]
        radii = [result.average_certified_radius for result in own]
        at_half = [result.accuracy_at_radius["0.50"] for result in own]
        clean = [result.clean_accuracy for result in own]
        rows.append(
            {
                "recipe": recipe,
                "schedule": schedule,
                "seeds": len(own),
                "epochs": own[0].epochs,
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
@click.option("--recipe", "recipes", multiple=True, type=click.Choice(list(LOSSES)))
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--equal-cost", is_flag=True, help="Also train the others for SmoothMix's cost.")
@click.option("--noise-samples", type=int, default=2_000, show_default=True)
@click.option("--every", type=click.IntRange(1), default=1, show_default=True)
@click.option("--procedure", type=click.Choice(PROCEDURES), default="fixed", show_default=True)
@click.option("--precision", type=click.Choice(["float32", "bfloat16"]))
@click.option("--set", "assignments", multiple=True, help="A setting of all, KEY=VALUE.")
@click.option("--device", default="cpu", show_default=True)
@click.option("--work", type=click.Path(path_type=Path), default=RESULTS / "work")
def main(
    recipes: tuple[str, ...],
    seeds: int,
    equal_cost: bool,
    assignments: tuple[str, ...],
    **common: Any,
) -> None:
    """Print each result as it comes, and write the table."""
    plan = Plan(overrides=dict(text.split("=", 1) for text in assignments), **common)
    schedules = [EQUAL_EPOCHS, EQUAL_COST] if equal_cost else [EQUAL_EPOCHS]
    results = []
    for seed, schedule in itertools.product(range(seeds), schedules):
        for recipe in recipes or LOSSES:
            if schedule == EQUAL_COST and recipe == "smoothmix":
                continue
            result = measure(plan, recipe, seed, schedule)
            results.append(result)
            click.echo(
                f"{recipe} seed {seed}, {schedule}: ACR {result.average_certified_radius:.3f}, "
                f"clean {percent(result.clean_accuracy)}, certified at 0.5 "
                f"{percent(result.accuracy_at_radius['0.50'])}, {result.passes_an_image} passes an "
                f"image, trained in {result.training_seconds:.0f} s"
            )
            content = {"results": [vars(each) for each in results], "table": table(results)}
            path = RESULTS / f"smoothmix-{plan.dataset}{plan.suffix}.json"
            path.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
