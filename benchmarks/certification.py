"""Certification beside the textbook's loop: images a second, in one run.

The loop is CERTIFY as its paper has it: image by image, batches of repeated images with fresh noise
from torch's global generator, the network as it is. Ours fills batches across images, folds batch
norms, draws noise that belongs to each draw, keeps freed memory, and compiles where a run is long
enough (compiling counts, as far as the compiler's cache on disk does not know the network). The two
take turns, so that both have the same machine, in processes of their own:

    python benchmarks/certification.py --threads 2
    python benchmarks/certification.py --threads 2 --network digits --images 90 --scale 5 --rounds 1
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context

import click
import torch
from scipy.stats import beta, norm
from torch import Tensor, nn

from bench.candidates.architectures import digits_network, residual_network
from bench.certification.smoothing import Smoothing
from bench.engines import CertificationTask
from bench.engines.certification import CertificationEngine
from bench.precision import tensor_cores
from bench.suites import ThreatModel

CLASSES = 10
SIGMA = 0.25
SELECTION_SAMPLES = 100
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


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int]] = {
    "digits": (digits_network, (1, 8, 8), 100_000),
    "ResNet-20": (
        partial(residual_network, CLASSES, (16, 32, 64), (3, 3, 3), 16),
        (3, 32, 32),
        3_000,
    ),
}
"""How to build each, the shape of its images, and draws an image."""


@dataclass(frozen=True)
class Contest:
    """What both sides do: one network, images and numbers of draws."""

    name: str
    images: int
    scale: float
    threads: int
    textbook_batch: int
    precision: str

    @property
    def draws(self) -> int:
        return self.images * (SELECTION_SAMPLES + self.smoothing.noise_samples)

    @property
    def smoothing(self) -> Smoothing:
        return Smoothing(SIGMA, SELECTION_SAMPLES, round(self.scale * NETWORKS[self.name][2]))

    def seconds(self, side: str) -> float:
        """Of the textbook or of ours, in a process that has done some of it before."""
        torch.set_num_threads(self.threads)
        make, shape, _ = NETWORKS[self.name]
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        module = make().eval().to(device)
        images = torch.rand((self.images, *shape), generator=torch.Generator().manual_seed(0))
        work = self._by_textbook if side == "textbook" else self._by_engine
        work(module, images[:1], device)
        start = time.perf_counter()
        work(module, images, device)
        return time.perf_counter() - start

    def _by_textbook(self, module: nn.Module, images: Tensor, device: torch.device) -> None:
        with tensor_cores(self.precision == "tf32"):
            for image in images.to(device):
                textbook(module, image, self.smoothing, self.textbook_batch)

    def _by_engine(self, module: nn.Module, images: Tensor, device: torch.device) -> None:
        engine = CertificationEngine(precision=self.precision)
        task = CertificationTask(
            module=module,
            images=images,
            labels=torch.zeros(len(images), dtype=torch.int64),
            indices=torch.arange(len(images)),
            classes=CLASSES,
            threat_model=ThreatModel(norm="L2", eps=SIGMA),
            seed=0,
            batch_size=engine.default_batch_size(module, images[:1].to(device)),
            device=device,
            smoothing=self.smoothing,
        )
        list(engine.run(task, {}, lambda _: None))


@click.command()
@click.option("--network", "names", type=click.Choice(list(NETWORKS)), multiple=True)
@click.option("--threads", type=int, default=2, show_default=True)
@click.option("--images", type=int, default=4, show_default=True)
@click.option("--scale", type=float, default=1.0, help="Of the draws an image.", show_default=True)
@click.option("--textbook-batch", type=int, default=1_000, show_default=True)
@click.option("--precision", type=click.Choice(["float32", "tf32"]), default="float32")
@click.option("--rounds", type=int, default=3, show_default=True)
def main(
    names: tuple[str, ...],
    threads: int,
    images: int,
    scale: float,
    textbook_batch: int,
    precision: str,
    rounds: int,
) -> None:
    """Print the throughput of both, and its ratio, for each network."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for name in names or NETWORKS:
        contest = Contest(name, images, scale, threads, textbook_batch, precision)
        seconds: dict[str, list[float]] = {"textbook": [], "ours": []}
        for _ in range(rounds):
            for side, found in seconds.items():
                # What one leaves behind (allocator, threads) must not change the other.
                with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
                    found.append(process.submit(contest.seconds, side).result())
        slow, fast = (statistics.median(found) for found in seconds.values())
        click.echo(
            f"{name} on {device} in {precision}: textbook {contest.draws / slow:,.0f} draws/s, "
            f"ours {contest.draws / fast:,.0f} draws/s, ratio {slow / fast:.2f} "
            f"(target {TARGET[device]})"
        )


if __name__ == "__main__":
    main()
