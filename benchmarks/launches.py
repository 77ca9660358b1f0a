"""What attacks ask of a GPU: launches, waits of the host, and bytes copied.

Counted on the pretend device of the tests, so that every machine can say; the passes of the model
are left out. Small steps are bound by launches: each costs the host some microseconds, whatever the
size of the batch.

    python -m benchmarks.launches
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import click
import torch
from torch import nn

from bench import data
from bench.attacks.attack import Attack
from bench.attacks.auto_pgd import APGD
from bench.attacks.cosine_pgd import CosinePGD
from bench.attacks.distances import Norm
from bench.attacks.registry import plan_attack
from bench.candidates.mix import Mix
from bench.engines import AttackTask
from bench.engines.batch import Batch
from bench.engines.fast import FastEngine
from bench.engines.point_search import PointSearch
from bench.engines.search import Search
from bench.engines.sweep import SweepEngine
from bench.suites import ThreatModel
from bench.suites.suite import AttackChoice
from bench.training.mix_attack import TrainingAPGD
from tests.attacks.launches import Asked, asked_by_steps
from tests.pretend_cuda import PretendCuda

EPS: dict[Norm, float] = {"Linf": 8 / 255, "L2": 0.5}
ATTACKS = ("apgd-ce", "apgd-t", "fab-t", "square", "apgd-alpha-t", "apgd-mix-margin", "fmn")
BATCH = 16
FIRST_STEPS = 4
LATER_STEPS = 20
COUNTED = 4
RESULTS = Path(__file__).parent / "results" / "launches.txt"


def attacks(classes: int = 10) -> Iterator[tuple[str, Norm, Attack[Any]]]:
    """Yield each attack with its name and norm."""
    for name in ATTACKS:
        for norm, eps in EPS.items():
            yield name, norm, plan_attack(name, {}, norm=norm, eps=eps, classes=classes).attack
    for norm, eps in EPS.items():
        yield "cosine PGD", norm, CosinePGD(norm, eps, steps=100)
        training = TrainingAPGD(
            norm, eps, steps=75, radius_factors=(0.4, 1.1), push_weights=(0.0, 0.4)
        )
        yield "training of a mixing network", norm, training


def step_lines() -> Iterator[str]:
    """Yield a line for each attack: one of its first steps, and one of its later ones."""
    yield f"{'a step of':30} {'norm':5} {'first':>8} {'later':>8} {'waits':>6} {'bytes':>6}"
    images = torch.rand(BATCH, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    for name, norm, attack in attacks():
        first = asked_by_steps(attack, images, before=1, steps=FIRST_STEPS)
        later = asked_by_steps(attack, images, before=LATER_STEPS, steps=COUNTED)
        yield (
            f"{name:30} {norm:5} {first.launches.total() / FIRST_STEPS:8.1f}"
            f" {later.launches.total() / COUNTED:8.1f} {later.waits.total() / COUNTED:6.1f}"
            f" {later.copied.total() / COUNTED:6.0f}"
        )


def digits_task(module: nn.Module, steps: int) -> AttackTask:
    """Return APGD attacks on digits."""
    samples = data.load("digits").first(64)
    return AttackTask(
        module=copy.deepcopy(module).to("cuda"),
        images=samples.images,
        labels=samples.labels,
        indices=samples.indices,
        classes=10,
        seed=3,
        batch_size=16,
        device=torch.device("cuda"),
        threat_model=ThreatModel(norm="Linf", eps=0.06),
        attacks=(
            AttackChoice(name="apgd-ce", parameters={"steps": steps}),
            AttackChoice(name="apgd-t", parameters={"steps": steps, "targets": 2}),
        ),
    )


def linear_digits() -> nn.Module:
    """Return class means as a linear classifier."""
    samples = data.load("digits").first(1000)
    images = samples.images.flatten(1)
    means = torch.stack([images[samples.labels == label].mean(dim=0) for label in range(10)])
    layer = nn.Linear(images.shape[1], 10)
    with torch.no_grad():
        layer.weight.copy_(10 * means)
        layer.bias.copy_(-5 * means.square().sum(dim=1))
    return nn.Sequential(nn.Flatten(), layer).eval().requires_grad_(False)


class Calls:
    """What calls of functions asked of a device, by name."""

    def __init__(self, cuda: PretendCuda) -> None:
        self.cuda = cuda
        self.asked: dict[str, list[Asked]] = {}

    def watched(self, name: str, owner: type, method: str) -> Any:
        """Return a patch that notes what a method asks of the device."""
        original: Callable[..., Any] = getattr(owner, method)

        def call(*arguments: Any, **keywords: Any) -> Any:
            before = Asked.so_far(self.cuda)
            try:
                return original(*arguments, **keywords)
            finally:
                self.asked.setdefault(name, []).append(Asked.so_far(self.cuda).since(before))

        return mock.patch.object(owner, method, call)

    def lines(self) -> Iterator[str]:
        """Yield a line for each name."""
        for name, found in self.asked.items():
            launched = [each for each in found if each.launches]
            count = max(1, len(launched))
            yield (
                f"{name:45} {len(launched):5d}"
                f" {sum(each.launches.total() for each in launched) / count:9.1f}"
                f" {sum(each.waits.total() for each in launched) / count:6.2f}"
            )


def engine_lines() -> Iterator[str]:
    """Yield lines for what searches do besides steps."""
    yield f"{'a call of':45} {'calls':>5} {'launches':>9} {'waits':>6}"
    with PretendCuda() as cuda:
        calls = Calls(cuda)
        with (
            calls.watched("the search's refill of its batch", Search, "_fill"),
            calls.watched("taking items out of the batch", Batch, "remove"),
            calls.watched("confirming", Search, "_confirm"),
        ):
            list(FastEngine().run(digits_task(linear_digits(), 32), {}, lambda _: None))
        yield from calls.lines()
    with PretendCuda() as cuda:
        mix = Mix(linear_digits(), linear_digits(), 0.5).eval()
        calls, steps = Calls(cuda), Calls(cuda)
        with (
            calls.watched("a sweep's search from points", PointSearch, "_searched"),
            steps.watched("a step in it, the model's launches included", APGD, "step"),
        ):
            list(
                SweepEngine((0.0, 0.5, 1.0)).run(
                    replace(digits_task(mix, 32), module=mix.to("cuda")), {}, lambda _: None
                )
            )
        yield from calls.lines()
        yield from steps.lines()


@click.command()
@click.option("--output", type=click.Path(path_type=Path), default=RESULTS, show_default=True)
def main(output: Path) -> None:
    """Count, print and write the table."""
    lines = []
    for line in (*step_lines(), "", *engine_lines()):
        click.echo(line)
        lines.append(line)
    output.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
