"""The drop-in AutoAttack beside pyautoattack: the ratio of their times, by network.

    python benchmarks/dropin.py
    python benchmarks/dropin.py --network small --n-examples 1000

Both run standard AutoAttack, `run_standard_evaluation(images, labels)`, on the same images with the
same seed, in one process; pyautoattack first, as it runs there before the fast engine changes how
the process keeps memory. The small network is `residual-small` of this folder with its trained
weights and CIFAR-10's first test images. The other one is a ResNet-18 for 32x32 pixels (11 million
parameters) with random weights, on the same images with its own predictions as labels, and at a
radius so small that most of them survive, as those of a robust network do: the time goes to
survivors. Its budget is reduced on both sides alike (--share), since it takes hours otherwise.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import torch
from pyautoattack import AutoAttack as Reference
from torch import Tensor, nn

from bench import data
from bench.autoattack import AutoAttack
from bench.candidates.architectures import residual_network
from bench.candidates.registry import find_candidates
from bench.suites import load_suite

SMALL = Path(__file__).parent / "networks" / "residual-small"


@dataclass(frozen=True)
class Problem:
    """A network and what it is attacked on.

    Attributes:
        model: in evaluation mode.
        images: (N, 3, 32, 32).
        labels: (N,).
        eps: radius in Linf.
    """

    model: nn.Module
    images: Tensor
    labels: Tensor
    eps: float


def small(images: Tensor, labels: Tensor) -> Problem:
    """Return the small network with its trained weights."""
    (reference,) = find_candidates([str(SMALL)], load_suite("cifar10-linf"))
    return Problem(reference.load().module, images, labels, eps=2 / 255)


def resnet18(images: Tensor, labels: Tensor) -> Problem:
    """Return a ResNet-18 with random weights, and its own predictions for labels."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = residual_network(10, widths=(64, 128, 256, 512), blocks=(2, 2, 2, 2)).eval()
    with torch.no_grad():
        labels = torch.cat([model(part).argmax(dim=1) for part in images.split(50)])
    return Problem(model, images, labels, eps=0.01 / 255)


NETWORKS: dict[str, Callable[[Tensor, Tensor], Problem]] = {"small": small, "resnet18": resnet18}


@click.command()
@click.option("--network", type=click.Choice(list(NETWORKS)), help="Only this one.")
@click.option("--n-examples", default=100, show_default=True)
@click.option("--share", default=1.0, show_default=True, help="Of every attack's steps.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--batch-size", default=250, show_default=True, help="Of pyautoattack.")
@click.option("--data-dir", type=click.Path(path_type=Path), envvar="BENCH_DATA_DIR")
def main(
    network: str | None,
    n_examples: int,
    share: float,
    device: str,
    batch_size: int,
    data_dir: Path | None,
) -> None:
    """Print a line for each network."""
    samples = data.load_source(load_suite("cifar10-linf").data, data_dir, n_examples)
    click.echo("network   parameters  images  robust (theirs, ours)  seconds (theirs, ours)  ratio")
    for name in [network] if network else NETWORKS:
        problem = NETWORKS[name](samples.images, samples.labels)
        model = problem.model.to(device)
        theirs = Reference(model, norm="Linf", eps=problem.eps, seed=0, device=device)
        ours = AutoAttack(model, "Linf", problem.eps, seed=0, verbose=False)
        for adversary in (theirs, ours):
            _reduce(adversary, share)
        there = _timed(
            lambda x, y, run=theirs: run.run_standard_evaluation(x, y, batch_size=batch_size)[0],
            problem,
        )
        here = _timed(ours.run_standard_evaluation, problem)
        count = sum(parameter.numel() for parameter in model.parameters())
        click.echo(
            f"{name:8}  {count:10,}  {n_examples:6}  {there[1]:9.2%} {here[1]:11.2%}  "
            f"{there[0]:11.1f} {here[0]:10.1f}  {there[0] / here[0]:5.2f}"
        )


def _reduce(adversary: Any, share: float) -> None:
    """Give every attack a share of its steps."""
    for attack in (adversary.apgd, adversary.apgd_targeted, adversary.fab):
        attack.n_iter = max(1, round(share * attack.n_iter))
    adversary.square.n_queries = max(1, round(share * adversary.square.n_queries))


def _timed(attack: Callable[[Tensor, Tensor], Tensor], problem: Problem) -> tuple[float, float]:
    """Return the seconds that an attack takes, and the accuracy on what it returns."""
    start = time.perf_counter()
    adversarial = attack(problem.images, problem.labels)
    seconds = time.perf_counter() - start
    device = next(problem.model.parameters()).device
    with torch.no_grad():
        parts = [
            problem.model(part.to(device)).argmax(dim=1).cpu() for part in adversarial.split(50)
        ]
    accuracy = float((torch.cat(parts) == problem.labels).float().mean())
    return seconds, accuracy


if __name__ == "__main__":
    main()
