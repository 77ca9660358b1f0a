"""What the driver does for a shard: pack samples, and unpack, name and store what comes back.

    python benchmarks/driver_work.py

Blocks are made up, with images as incompressible as witnesses are, for the sizes of CIFAR and
ImageNet; they are stored by the store itself. From the times follows how many workers one
driver serves, for shards of so many seconds. Results are written to
benchmarks/results/driver_work.json.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from bench.candidates import Candidate
from bench.data import load
from bench.engines import AttackTask
from bench.executors.crew import Order
from bench.executors.parcels import pack_blocks, pack_samples, unpack_blocks
from bench.executors.shipment import pack
from bench.runs.session import make_plan
from bench.runs.settings import Settings
from bench.store import Store
from bench.store.records import AttackBlock, Attempts, Witnesses
from bench.suites import load_suite

RESULTS = Path(__file__).parent / "results" / "driver_work.json"
SHAPES = {"CIFAR-10": (3, 32, 32), "ImageNet": (3, 224, 224)}
SAMPLES = (2, 13, 64)
"""In a shard."""
BROKEN = 0.3
"""Share of a shard's samples with a witness; a first attack breaks that many, later ones few."""
REPEATS = 7


def block_of(indices: np.ndarray[Any, Any], shape: tuple[int, ...]) -> AttackBlock:
    """Return a block of an attack on samples, as large as a real one."""
    draw = np.random.default_rng(0)
    count = len(indices)
    broken = indices[: round(BROKEN * count)]
    images = draw.random((len(broken), *shape), dtype=np.float32)
    outcome = np.where(np.isin(indices, broken), "broken", "stood")
    numbers = np.full(count, 100.0)
    attempts = Attempts(
        index=indices,
        attack=np.full(count, "apgd-t"),
        outcome=outcome,
        iteration=np.full(count, 7),
        forward_passes=numbers,
        backward_passes=numbers,
        seconds=numbers,
    )
    witnesses = Witnesses(
        index=broken,
        attack=np.full(len(broken), "apgd-t"),
        prediction=np.zeros(len(broken), dtype=np.int64),
        images=images,
    )
    return AttackBlock(key="02-apgd-t", seconds=1.0, attempts=attempts, witnesses=witnesses)


def seconds_of(what: Callable[[int], object]) -> float:
    """Return the median seconds of a call, which is told its number."""
    times = []
    for number in range(REPEATS):
        start = time.perf_counter()
        what(number)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


@click.command()
def main() -> None:
    """Print the times of each step in milliseconds, and keep them."""
    settings = Settings(load_suite("digits-linf"), engine="fast", protocol="standard")
    plan = make_plan(Candidate("it", torch.nn.Flatten(), {}, ""), load("digits").first(4), settings)
    assert isinstance(plan.task, AttackTask)
    found = []
    for name, shape in SHAPES.items():
        for count in SAMPLES:
            indices = np.arange(count)
            images = torch.rand(4 * count, *shape)
            labels = torch.zeros(4 * count, dtype=torch.int64)
            task = replace(plan.task, images=images, labels=labels, indices=torch.arange(4 * count))
            rows = torch.arange(0, 4 * count, 4)
            block = block_of(indices, shape)
            data = pack_blocks([block], {"cost": 1.0})
            with tempfile.TemporaryDirectory() as place:
                folder = Store(Path(place)).folder(plan.manifest)
                folder.path.mkdir(parents=True)
                folder.begin(plan.manifest)
                times = {
                    "give": seconds_of(
                        lambda _: pack(
                            Order(0, pack_samples(task.part(rows))),  # noqa: B023
                            own_code=False,
                        )
                    ),
                    "unpack": seconds_of(lambda _: unpack_blocks(data)),  # noqa: B023
                    "store": seconds_of(
                        lambda number: folder.append(  # noqa: B023
                            replace(block, key=f"02-apgd-t-{number:05d}")  # noqa: B023
                        )
                    ),
                }
            record = {"images": name, "samples": count, **times, "seconds": sum(times.values())}
            found.append(record)
            steps = ", ".join(f"{step} {1000 * each:.1f} ms" for step, each in times.items())
            click.echo(f"{name}, {count} samples: {steps}, together {1000 * record['seconds']:.1f}")
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
