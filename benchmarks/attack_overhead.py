"""What an attack's step costs beyond the network's own passes.

Each attack steps a full batch with a stand-in for the network whose passes cost next to nothing;
the time is set against the passes that the step takes of two networks, one of ResNet-18's size and
one of 0.1 M parameters:

    python benchmarks/attack_overhead.py --threads 1
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import click
import torch
from torch import Tensor, nn

from bench.attacks.attack import Attack
from bench.attacks.distances import Norm
from bench.attacks.draws import keyed_draws
from bench.attacks.registry import plan_attack

CLASSES = 10
EPS: dict[Norm, float] = {"Linf": 8 / 255, "L2": 0.5}
ATTACKS = ("apgd-ce", "apgd-t", "fab-t", "square")
TARGET = 0.15
"""Largest share of the pass that a step may add, for networks of ResNet-18's size and up."""


class Block(nn.Module):
    """Two convolutions with a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, images: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        result: Tensor = (self.body(images) + self.shortcut(images)).relu()
        return result


def residual_network(widths: Sequence[int], blocks: int, stem_stride: int = 1) -> nn.Module:
    """A residual network for 32 x 32 images; (64, 128, 256, 512) with 2 blocks is ResNet-18."""
    layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 3, stem_stride, 1, bias=False)]
    inputs = widths[0]
    for stage, width in enumerate(widths):
        for block in range(blocks):
            layers.append(Block(inputs, width, 2 if stage and not block else 1))
            inputs = width
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, CLASSES)]
    network = nn.Sequential(*layers).eval().requires_grad_(False)
    return network.to(memory_format=torch.channels_last)


class StandIn(torch.autograd.Function):
    """Logits and an image gradient that were made beforehand."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, logits: Tensor, gradient: Tensor) -> Tensor:
        """The logits."""
        ctx.save_for_backward(gradient)
        return logits.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """The gradient, scaled a little so that no memory is shared."""
        return ctx.saved_tensors[0] * 1.0, None, None


def seconds(function: Callable[[], object], repetitions: int, device: torch.device) -> float:
    """Time of one call, the smallest of several.

    On one CPU thread it is the process's own time, which other processes disturb less.
    """
    clock = time.perf_counter
    if device.type == "cpu" and torch.get_num_threads() == 1:
        clock = time.process_time
    best = math.inf
    for _ in range(repetitions + 1):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        start = clock()
        function()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, clock() - start)
    return best


def step_seconds(attack: Attack[Any], images: Tensor, repetitions: int) -> float:
    """Time of a step on a batch, its passes left out."""
    count, device = len(images), images.device
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(count, CLASSES, generator=generator).to(device)
    labels = logits.argmax(dim=1)
    targets = logits.argsort(dim=1)[:, -2]
    gradient = torch.randn(images.shape, generator=generator).to(device)
    # A gradient for which the boundary lies about at the radius.
    gradient /= gradient[0].numel() * attack.eps

    def model(batch: Tensor) -> Tensor:
        result: Tensor = StandIn.apply(batch, logits, gradient)
        return result

    state = attack.start(
        images, labels, keyed_draws(0, torch.arange(count, device=device), "overhead"), targets
    )
    for _ in range(3):
        attack.step(model, state)
    return seconds(lambda: attack.step(model, state), repetitions, device)


def pass_seconds(network: nn.Module, images: Tensor, repetitions: int) -> tuple[float, float]:
    """Times of a forward and of a forward-backward pass over a batch."""

    def forward() -> None:
        with torch.no_grad():
            network(images)

    def forward_backward() -> None:
        inputs = images.detach().requires_grad_()
        torch.autograd.grad(network(inputs).sum(), inputs)

    return (
        seconds(forward, repetitions, images.device),
        seconds(forward_backward, repetitions, images.device),
    )


@click.command()
@click.option("--batch", default=256, show_default=True, help="Items in a step.")
@click.option("--threads", type=int, help="CPU threads; torch's default if not given.")
@click.option("--repetitions", default=20, show_default=True, help="Steps timed; the best counts.")
@click.option("--device", default="cpu", show_default=True)
@click.option("--compiled", is_flag=True, help="Compile the attacks' arithmetic first.")
def main(batch: int, threads: int | None, repetitions: int, device: str, compiled: bool) -> None:
    """Print each attack's overhead and its share of the passes of a step."""
    if threads is not None:
        torch.set_num_threads(threads)
    images = (1.4 * torch.rand(batch, 3, 32, 32) - 0.2).clamp_(0, 1).to(device)
    networks = {
        "ResNet-18": residual_network((64, 128, 256, 512), 2).to(device),
        "0.1 M": residual_network((18, 36, 72), 1, stem_stride=2).to(device),
    }
    passes = {}
    for name, network in networks.items():
        forward, both = pass_seconds(network, images, max(1, repetitions // 10))
        size = sum(parameter.numel() for parameter in network.parameters())
        passes[name] = (forward, both)
        click.echo(
            f"{name}: {size / 1e6:.2f} M parameters, {batch / forward:,.0f} forward and"
            f" {batch / both:,.0f} forward-backward images/s"
        )
    click.echo(f"{'attack':8} {'norm':5} {'start ms':>9} {'step ms':>8}  share of the passes")
    for name in ATTACKS:
        for norm, eps in EPS.items():
            attack = plan_attack(name, {}, norm=norm, eps=eps, classes=CLASSES).attack
            zeros = torch.zeros(batch, dtype=torch.int64, device=device)
            draws = keyed_draws(0, zeros, name)
            start = seconds(
                lambda attack=attack, draws=draws, zeros=zeros: attack.start(  # type: ignore[misc]
                    images, zeros, draws, zeros
                ),
                3,
                images.device,
            )
            if compiled:
                attack.compile()
            step = step_seconds(attack, images, repetitions)
            shares = [
                step / (attack.passes.forward * forward + attack.passes.forward_backward * both)
                for forward, both in passes.values()
            ]
            columns = ", ".join(
                f"{network} {share:.1%}" for network, share in zip(networks, shares, strict=True)
            )
            verdict = "" if shares[0] < TARGET else "  above the target"
            if attack.compile_problem:
                verdict += f"  not compiled: {attack.compile_problem}"
            click.echo(
                f"{name:8} {norm:5} {1e3 * start:9.1f} {1e3 * step:8.2f}  {columns}{verdict}"
            )


if __name__ == "__main__":
    main()
