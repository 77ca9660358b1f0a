"""Certification beside the textbook's loop: images a second, in one run.

The loop is CERTIFY as its paper has it: image by image, batches of repeated images with fresh noise
from torch's global generator, the network as it is. Ours fills batches across images, folds batch
norms and draws noise that belongs to each draw. The two take turns, so that both have the same
machine:

    python benchmarks/certification.py --threads 2
"""

from __future__ import annotations

import statistics
import time

import click
import torch
from scipy.stats import beta, norm
from torch import Tensor, nn

from bench.candidates.architectures import digits_network, residual_network
from bench.certify.smoothing import Smoothing
from bench.engines import Task
from bench.engines.certification import CertificationEngine
from bench.suites import ThreatModel

CLASSES = 10
SIGMA = 0.25
TARGET = {"cpu": 1.2, "cuda": 2.0}


def textbook(module: nn.Module, image: Tensor, smoothing: Smoothing, batch: int) -> float:
    """CERTIFY of one image (C, H, W); the radius, 0 where it abstains."""

    def counts_under_noise(draws: int) -> Tensor:
        counts = torch.zeros(CLASSES, dtype=torch.int64)
        while draws:
            size = min(batch, draws)
            repeated = image.expand(size, *image.shape)
            noisy = repeated + torch.randn_like(repeated) * smoothing.sigma
            counts += torch.bincount(module(noisy).argmax(dim=1).cpu(), minlength=CLASSES)
            draws -= size
        return counts

    with torch.no_grad():
        guess = int(counts_under_noise(smoothing.selection_samples).argmax())
        successes = int(counts_under_noise(smoothing.noise_samples)[guess])
    missed = smoothing.noise_samples - successes
    bound = beta.ppf(smoothing.failure_probability, successes, missed + 1) if successes else 0.0
    return smoothing.sigma * float(norm.ppf(bound)) if bound >= 0.5 else 0.0


@click.command()
@click.option("--threads", type=int, default=2, show_default=True)
@click.option("--images", "count", type=int, default=4, show_default=True)
@click.option("--scale", type=float, default=1.0, help="Of the draws an image.", show_default=True)
@click.option("--textbook-batch", type=int, default=1_000, show_default=True)
@click.option("--rounds", type=int, default=3, show_default=True)
def main(threads: int, count: int, scale: float, textbook_batch: int, rounds: int) -> None:
    """Print the throughput of both, and its ratio, for two networks."""
    torch.set_num_threads(threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    networks = {
        "digits": (digits_network(), (1, 8, 8), 20_000),
        "ResNet-20": (residual_network(CLASSES, (16, 32, 64), (3, 3, 3), 16), (3, 32, 32), 1_000),
    }
    for name, (module, shape, draws_each) in networks.items():
        smoothing = Smoothing(SIGMA, 100, round(scale * draws_each))
        module = module.eval().to(device)
        images = torch.rand((count, *shape), generator=torch.Generator().manual_seed(0))
        engine = CertificationEngine()
        task = Task(
            module=module,
            images=images,
            labels=torch.zeros(count, dtype=torch.int64),
            indices=torch.arange(count),
            classes=CLASSES,
            threat_model=ThreatModel(norm="L2", eps=SIGMA),
            attacks=(),
            seed=0,
            batch_size=engine.default_batch_size(module, images[:1].to(device)),
            device=device,
            smoothing=smoothing,
        )
        theirs, ours = [], []
        for _ in range(rounds + 1):
            start = time.perf_counter()
            for image in images.to(device):
                textbook(module, image, smoothing, textbook_batch)
            middle = time.perf_counter()
            list(engine.run(task, {}, lambda _: None))
            theirs.append(middle - start)
            ours.append(time.perf_counter() - middle)
        draws = count * (smoothing.selection_samples + smoothing.noise_samples)
        # The first round warms up.
        slow, fast = statistics.median(theirs[1:]), statistics.median(ours[1:])
        click.echo(
            f"{name} on {device}: textbook {draws / slow:,.0f} draws/s, ours {draws / fast:,.0f} "
            f"draws/s, ratio {slow / fast:.2f} (target {TARGET[device.type]})"
        )


if __name__ == "__main__":
    main()
