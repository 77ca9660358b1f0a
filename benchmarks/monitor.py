"""What the monitor costs a training, and how near its last value is to AutoAttack's.

A small residual network is trained on some thousand CIFAR-10 images, plainly and adversarially, and
measured after each epoch:

    BENCH_DATA_DIR=data python benchmarks/monitor.py

The share is the monitor's time over the epoch's own, and the same for an epoch of 50,000 images,
to which the epoch's time is scaled. AutoAttack (the fast engine's) then attacks the same images,
and counts as near if its robust accuracy lies within the monitor's last interval.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import click
import torch
from attack_overhead import residual_network
from torch import Tensor, nn

import bench
from bench import data
from bench.autoattack import AutoAttack
from bench.monitor.monitor import N_EXAMPLES, STEPS

EPS = 8 / 255
CIFAR_IMAGES = 50_000
TARGET = 0.02
"""Largest share of an epoch of CIFAR-10's size."""
BATCH = 128


def perturbed(network: nn.Module, images: Tensor, labels: Tensor, steps: int) -> Tensor:
    """Return images that adversarial training takes: by PGD from a random point of the ball."""
    low, high = (images - EPS).clamp(min=0), (images + EPS).clamp(max=1)
    points = (images + torch.empty_like(images).uniform_(-EPS, EPS)).clamp(0, 1)
    rate = 1.25 * EPS if steps == 1 else 2.5 * EPS / steps
    for _ in range(steps):
        points.requires_grad_()
        loss = nn.functional.cross_entropy(network(points), labels)
        (gradient,) = torch.autograd.grad(loss, points)
        points = (points.detach() + rate * gradient.sign()).clamp(low, high)
    return points


def train_epoch(
    network: nn.Module, optimizer: torch.optim.Optimizer, train: data.Dataset, steps: int
) -> float:
    """Train for one epoch, with flipped images; return the seconds."""
    start = time.perf_counter()
    network.train()
    for rows in torch.randperm(len(train)).split(BATCH):
        images, labels = train.images[rows], train.labels[rows]
        images = torch.where(torch.rand(len(rows), 1, 1, 1) < 0.5, images.flip(3), images)
        if steps:
            images = perturbed(network, images, labels, steps)
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images), labels, label_smoothing=0.1).backward()
        optimizer.step()
    return time.perf_counter() - start


def row(name: str, steps: int, options: dict[str, int], train: data.Dataset) -> str:
    """Train one network; return its line of the table."""
    torch.manual_seed(0)
    network = residual_network((16, 32, 64), 1).requires_grad_(True)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    monitor = bench.RobustnessMonitor(
        "cifar10-linf", n_examples=options["n_examples"], steps=options["steps"]
    )
    epochs = []
    for epoch in range(options["epochs"]):
        epochs.append(train_epoch(network, optimizer, train, steps))
        result = monitor.measure(network, epoch)
        click.echo(f"{name}: {result}; {epochs[-1]:.1f} s of training", err=True)
    network.eval()
    samples = data.load("cifar10", "test")
    images, labels = samples.images[monitor.indices], samples.labels[monitor.indices]
    attack = AutoAttack(network, norm="Linf", eps=EPS, verbose=False)
    adversarial = attack.run_standard_evaluation(images, labels)
    with torch.no_grad():
        robust = float((network(adversarial).argmax(1) == labels).float().mean())
    seconds = monitor.history()["seconds"].median()
    own = sorted(epochs)[len(epochs) // 2]
    share = seconds / (own * CIFAR_IMAGES / len(train))
    interval = result.interval
    near = interval.low <= robust <= interval.high
    return (
        f"{name:12} {own:8.1f} {seconds:9.2f} {seconds / own:8.1%} {share:10.2%} "
        f"{'yes' if share <= TARGET else 'no':>6} {result.clean:7.1%} {result.robust:8.1%} "
        f"[{interval.low:.1%}, {interval.high:.1%}] {robust:10.1%} {'yes' if near else 'no':>6}"
    )


TRAININGS = {"plain": 0, "FGSM": 1, "PGD-7": 7}
"""By name, the attack steps that the training takes for each batch."""


@click.command()
@click.option("--images", default=4000, help="Training images.")
@click.option("--epochs", default=4)
@click.option("--n-examples", default=N_EXAMPLES, help="Images that the monitor measures.")
@click.option("--steps", default=STEPS, help="Steps of its attack.")
@click.option("--threads", default=1)
@click.option("--training", "trainings", type=click.Choice(list(TRAININGS)), multiple=True)
def main(images: int, threads: int, trainings: Sequence[str], **options: int) -> None:
    """Print the table."""
    torch.set_num_threads(threads)
    whole = data.load("cifar10", "train")
    train = whole.take(torch.arange(images))
    click.echo(
        f"{'training':12} {'epoch, s':>8} {'monitor,s':>9} {'share':>8} {'at 50,000':>10} "
        f"{'<= 2%':>6} {'clean':>7} {'robust':>8} {'interval':16} {'AutoAttack':>10} {'near':>6}"
    )
    for name in trainings or TRAININGS:
        click.echo(row(name, TRAININGS[name], options, train))


if __name__ == "__main__":
    main()
