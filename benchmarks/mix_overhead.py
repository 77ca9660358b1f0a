"""What mixing costs beside the bases alone, in one run.

    python benchmarks/mix_overhead.py --suite cifar100-linf --candidate my-mix --batch-size 64

The candidate, a mix, is timed forward and forward-backward (gradient for the images) beside its
bases, each alone, and its mixing network, where it has one, on the bases' feature maps. The rounds
take turns, so that a change of the machine's speed meets all; medians are printed. A fixed mix is
to cost no more than 1.05 times its bases.

A mix holds more memory at a time than its parts one by one. Where the C library gives freed
memory back to the system after each pass (glibc does), that costs page faults, some percent on a
CPU; they are gone with MALLOC_MMAP_THRESHOLD_ and MALLOC_TRIM_THRESHOLD_ set to some gigabytes.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial

import click
import torch
from torch import Tensor

from bench import data
from bench.candidates.adaptive_mix import AdaptiveMix
from bench.candidates.mix import logits_of
from bench.candidates.registry import find_candidates
from bench.suites import load_suite

BAR = 1.05


@click.command()
@click.option("--suite", "suite_name", default="digits-linf", show_default=True)
@click.option("--candidate", default="digits-mix", show_default=True)
@click.option("--batch-size", default=256, show_default=True)
@click.option("--repeat", default=15, show_default=True)
@click.option("--device", default="cpu", show_default=True)
def main(suite_name: str, candidate: str, batch_size: int, repeat: int, device: str) -> None:
    """Print the times and their ratios."""
    suite = load_suite(suite_name)
    (reference,) = find_candidates([candidate], suite)
    mix = reference.load().mix
    shape = data.image_shape(suite.data.label)
    if mix is None or shape is None:
        raise click.UsageError(f"expected a mix and a data set known by name, got {candidate}")
    mix.to(device).requires_grad_(False)
    images = torch.rand(batch_size, *shape, device=device)
    parts = {
        "accurate base": (lambda given: logits_of(mix.accurate(given)), (images,)),
        "robust base": (lambda given: logits_of(mix.robust(given)), (images,)),
    }
    if isinstance(mix, AdaptiveMix):
        with torch.no_grad():
            maps = [*mix.accurate(images)[1], *mix.robust(images)[1]]
        network = mix.mixing_network
        parts["mixing network"] = (lambda *each: network(each[:2], each[2:]), maps)
    for kind, measure in (("forward", _forward), ("forward-backward", _forward_backward)):
        calls = {
            name: partial(measure, function, inputs) for name, (function, inputs) in parts.items()
        }
        seconds = _medians({**calls, "mix": partial(measure, mix, (images,))}, repeat, device)
        for name, each in seconds.items():
            click.echo(f"{kind:16} {name:15} {1000 * each:9.2f} ms")
        total = sum(each for name, each in seconds.items() if name != "mix")
        ratio = seconds["mix"] / total
        verdict = "within" if ratio <= BAR else "above"
        click.echo(f"{kind:16} mix / sum of the parts {ratio:.3f}, {verdict} {BAR}")


def _medians(calls: dict[str, Callable[[], None]], repeat: int, device: str) -> dict[str, float]:
    """Median seconds of each call; the first round warms up and does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for round_number in range(repeat + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if device != "cpu":
                torch.cuda.synchronize()
            if round_number > 0:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(each) for name, each in seconds.items()}


def _forward(function: Callable[..., Tensor], inputs: Sequence[Tensor]) -> None:
    with torch.no_grad():
        function(*inputs)


def _forward_backward(function: Callable[..., Tensor], inputs: Sequence[Tensor]) -> None:
    given = [each.clone().requires_grad_() for each in inputs]
    torch.autograd.grad(function(*given).sum(), given)


if __name__ == "__main__":
    main()
