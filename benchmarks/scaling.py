"""How evaluations scale: two workers as measured, 8 to 512 workers on a virtual clock.

    python benchmarks/two_workers.py       # records shards, and two workers' speedups
    python benchmarks/driver_work.py       # times the driver's own work for a shard
    python benchmarks/scaling.py           # this: fits, simulates, writes results/scaling.txt

A shard's time is fitted to recorded shards, and scaled to a GPU by the operations of a pass and the
GPU's published rate. What is assumed stands in the table.
"""

from __future__ import annotations

import json
import math
import random
import re
import statistics
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
import torch
from cluster_simulation import Cluster, Leg, Load, simulate

import bench
from bench.attacks.registry import STANDARD, plan_attack
from bench.candidates.registry import find_candidates
from bench.data import load_source
from bench.engines.attack_works import preparation, unit_seconds
from bench.engines.batch_size import ENOUGH_OPERATIONS, FILLING_OPERATIONS, LARGEST
from bench.engines.engine import survivor_cost
from bench.executors.shipment import pack, unpack
from bench.executors.worker import WorkerHere
from bench.runs.session import make_plan
from bench.runs.settings import Settings
from bench.runs.side_by_side import MOST_AT_ONCE
from bench.suites import load_suite

RESULTS = Path(__file__).parent / "results"
PEAK, REACHED = 67e12, 0.5
"""Operations a second of an H100 SXM in float32 (NVIDIA's data sheet), and the share reached."""
NETWORK_BYTES = 1.25e9
"""Bytes a second that a node receives: 10 Gbit/s."""
SAMPLES = {"cifar10": 10_000, "cifar100": 10_000, "imagenet": 5_000}
STANDS = {"apgd-ce": 0.82, "apgd-t": 0.96, "fab-t": 0.999, "square": 0.999}
"""Of samples that enter an attack, for a robust network; APGD-CE's follows from the accuracies."""
BEFORE_A_UNIT, AFTER = 400.0, 10.0
"""Passes of the driver's inspection, as many images each as fill the device; seconds to sum up."""
GIGA_MACS = {
    "PreActResNet-18": 0.56, "ResNet-18": 0.56, "ResNet-50": 1.3, "WideResNet-50-2": 11.4,
    "Swin-B": 15.4, "Swin-L": 34.5, "ConvNeXt-T": 4.5, "ConvNeXt-S": 8.7, "ConvNeXt-B": 15.4,
    "ConvNeXt-L": 34.4, "ConvNeXtV2-L": 34.4, "XCiT-S12": 4.8, "XCiT-M12": 8.5, "XCiT-L12": 18.0,
    "ViT-S": 4.6, "ViT-B": 17.6, "DeiT Small": 4.6, "DeiT Base": 17.6, "ResNet-152": 11.5,
}  # fmt: skip
"""Billions of multiplications of a pass on the data set's images, as published; else by formula."""
MULTIPLICATIONS_A_WEIGHT = 150
"""Of WideResNet-70-16 on 32x32 images, and about those of ResNet-50 on ImageNet's."""
OTHERS = 1.0
"""The same, for networks that are not named."""


def multiplications(architecture: str, dataset: str) -> float:
    """Return the multiplications of an image's forward pass; parts of a mix are added."""
    total = 0.0
    for part in architecture.split(" + "):
        wide = re.search(r"WideResNet-(\d+)-(\d+)", part)
        known = next((name for name in GIGA_MACS if name in part), None)
        if known is not None and not (known == "ResNet-18" and dataset == "imagenet"):
            total += GIGA_MACS[known] * (
                3.2 if known == "ResNet-50" and dataset == "imagenet" else 1
            )
        elif dataset == "imagenet":
            total += 1.8 if known else 4.1
        elif wide:
            # Three groups of equal work; see Zagoruyko and Komodakis 2016.
            total += 0.01416 * ((int(wide[1]) - 4) / 6) * int(wide[2]) ** 2
        elif part not in ("mixing network", "ConvStem"):
            total += OTHERS
    return 1e9 * total


def load_of(dataset: str, macs: float, clean: float, robust: float, fit: dict[str, float]) -> Load:
    """Return a candidate's run on one GPU of the cluster.

    Args:
        dataset: its name.
        macs: multiplications of an image's forward pass.
        clean, robust: accuracies in percent.
        fit: of `fitted` and `startup`.
    """
    operations = 2 * macs
    unit = operations / (PEAK * REACHED)
    classes = {"cifar10": 10, "cifar100": 100, "imagenet": 1000}[dataset]
    stands = dict(STANDS)
    stands["apgd-ce"] = min(0.999, robust / clean / math.prod(list(STANDS.values())[1:]))
    legs = []
    for name in STANDARD:
        plan = plan_attack(name, {}, norm="Linf", eps=8 / 255, classes=classes)
        legs.append(Leg(survivor_cost(plan), plan.items, stands[name]))
    fills = max(1, min(LARGEST["cuda"], math.ceil(FILLING_OPERATIONS["cuda"] / operations)))
    batch = max(1, min(LARGEST["cuda"], int(ENOUGH_OPERATIONS["cuda"] / operations)))
    size = 4 * macs / MULTIPLICATIONS_A_WEIGHT
    return Load(
        SAMPLES[dataset],
        Leg(1.0, 1, clean / 100),
        tuple(legs),
        unit=unit,
        fills=fills,
        batch=batch,
        beside=fit["beside"],
        spread=fit["spread"],
        take=fit["take"] + size / fit["bytes_a_second"] + size / NETWORK_BYTES,
        prepare=fit["prepare"] + fit["prepare_units"] * unit,
        before=fit["take"] + size / fit["bytes_a_second"] + BEFORE_A_UNIT * fills * unit,
        after=AFTER,
    )


def fitted() -> dict[str, float]:
    """Return what recorded shards say: seconds beside the samples, and the spread.

    Seconds of a unit are each stage's own median: a batch of an attack is no batch of another.
    """
    beside, spread = [], []
    frame = pd.DataFrame(recorded_shards())
    for _, clean in frame[frame.stage == "clean"].groupby("work"):
        beside.append(float(clean.seconds.min()))
    for _, shards in frame[frame.stage != "clean"].groupby(["work", "stage"]):
        if len(shards) > 2:
            logs = np.log(shards.seconds / shards.cost)
            spread.append(float(logs.std()))
    return {"beside": max(beside), "spread": statistics.median(spread), "shards": float(len(frame))}


def recorded_shards() -> list[dict[str, Any]]:
    """Return the shards of two workers' runs."""
    records = map(json.loads, (RESULTS / "two_workers.jsonl").read_text().splitlines())
    return [{"work": each["work"], **shard} for each in records for shard in each["shards"]]


def startup(data_dir: Path | None) -> dict[str, float]:
    """Return what a worker takes for a candidate, measured with a CIFAR-10 network here."""
    suite = load_suite("cifar10-linf")
    (reference,) = find_candidates(["cifar10-robust"], suite)
    samples = load_source(suite.data, data_dir, 32)
    task: Any = make_plan(reference.load(), samples, Settings(suite, protocol="standard")).task
    start = time.perf_counter()
    data = pack(task.part(slice(0, 0)))
    unpack(data)
    both = time.perf_counter() - start
    worker = WorkerHere(task)
    setup = preparation(task, torch.arange(32), "float32", needs_gradient=True)
    start = time.perf_counter()
    prepared = worker.prepared(setup)
    seconds = time.perf_counter() - start
    unit = unit_seconds(prepared)
    weights = torch.rand(25_000_000)
    start = time.perf_counter()
    unpack(pack(weights))
    rate = 100e6 / (time.perf_counter() - start)
    return {
        "take": both,
        "bytes_a_second": rate,
        "prepare": 1.0,
        "prepare_units": seconds / unit,
    }


def zoo(fit: dict[str, float]) -> list[Load]:
    """Return the runs of all models of RobustBench's adversarial leaderboards, shuffled."""
    table = pd.read_csv(Path(bench.__file__).parent / "claims" / "robustbench.csv")
    table = table[table.threat_model != "corruptions"]
    loads = []
    for row in table.itertuples():
        robust = row.autoattack_acc if row.autoattack_acc > 0 else 0.5 * row.clean_acc
        macs = multiplications(str(row.architecture), row.dataset)
        loads.append(load_of(row.dataset, macs, row.clean_acc, max(robust, 1.0), fit))
    random.Random(0).shuffle(loads)
    return loads


def two_workers() -> list[str]:
    """Return lines about what `two_workers.py` measured."""
    records = map(json.loads, (RESULTS / "two_workers.jsonl").read_text().splitlines())
    frame = pd.DataFrame(list(records)).drop(columns="shards")
    lines = [
        f"{'work':<24}{'rounds':>7}{'load':>6}  by the clock      by processors     both cores"
    ]
    for work, rows in frame.groupby("work", sort=False):
        one, two = (rows[rows.workers == workers].reset_index() for workers in (1, 2))
        clock = one.seconds / two.seconds
        processors = one.processor_seconds / two.processor_seconds
        bound = 2 * one.seconds / one.seconds_beside_another
        lines.append(
            f"{work:<24}{len(one):>7}{rows.load.median():>6.1f}  "
            f"{clock.median():.2f} (best {clock.max():.2f})  "
            f"{processors.median():.2f} (best {processors.max():.2f})  {bound.median():.2f}"
        )
    return lines


def driver_lines() -> list[str]:
    """Return lines about what `driver_work.py` measured, and how many workers that serves."""
    lines = []
    for each in json.loads((RESULTS / "driver_work.json").read_text()):
        seconds = each["seconds"]
        steps = ", ".join(f"{step} {1000 * each[step]:.1f}" for step in ("give", "unpack", "store"))
        lines.append(
            f"{each['images']:<9}{each['samples']:>3} samples: {steps} ms; 512 workers need shards "
            f"of {512 * seconds:.1f} s or more; one driver serves {10 / seconds:,.0f} at 10 s, "
            f"{30 / seconds:,.0f} at 30 s"
        )
    return lines


def driver_seconds(images: str) -> float:
    """Return the driver's seconds for a shard of 13 samples."""
    found = json.loads((RESULTS / "driver_work.json").read_text())
    return float(
        next(each["seconds"] for each in found if (each["images"], each["samples"]) == (images, 13))
    )


@click.command()
@click.option("--data-dir", type=click.Path(path_type=Path), envvar="BENCH_DATA_DIR")
@click.option("--seeds", default=3, show_default=True)
def main(data_dir: Path | None, seeds: int) -> None:
    """Write the table."""
    torch.set_num_threads(1)
    fit = fitted() | startup(data_dir)
    driver = driver_seconds("CIFAR-10")
    lines = [
        "Two workers of one thread each beside one, on two cores; the last column is what two runs",
        "that know nothing of each other reach together, so about the most that sharing can.",
        *two_workers(),
        "",
        "The driver's own work for a shard",
        *driver_lines(),
        "",
        "Simulated clusters: one NVIDIA H100 a worker, the scheduling of bench.executors",
        f"Fit to {fit['shards']:.0f} recorded shards: {fit['beside']:.2f} s beside the samples, "
        f"spread {fit['spread']:.2f} (standard deviation of the logarithm).",
        f"A worker loads a candidate in {fit['take']:.2f} s and {fit['bytes_a_second'] / 1e6:.0f} "
        f"MB a second, and 10 Gbit/s from the network; it prepares in {fit['prepare']:.0f} s and "
        f"{fit['prepare_units']:,.0f} passes of an image; the driver takes {1000 * driver:.1f} ms "
        "a shard.",
        f"Assumed: {PEAK * REACHED / 1e12:.1f} TFLOPS reached of {PEAK / 1e12:.0f}; "
        f"{FILLING_OPERATIONS['cuda']:.0e} operations fill the GPU and fewer take as long; passes "
        f"are not compiled; survivors {STANDS}, the first from the published accuracies; the "
        "driver has a GPU of its own; nothing is lost.",
        "Efficiency: time of one worker in one process / (workers x time).",
        "",
        "WideResNet-70-16, 10,000 samples of CIFAR-10 (93.25% clean, 70.69% robust)",
    ]
    macs = multiplications("WideResNet-70-16", "cifar10")
    one = load_of("cifar10", macs, 93.25, 70.69, fit)
    for workers in (8, 64, 512):
        found = [simulate([one], Cluster(workers, driver=driver), seed) for seed in range(seeds)]
        worst = min(found, key=lambda each: each.efficiency)
        lines.append(
            f"{workers:>5} workers: efficiency {worst.efficiency:.3f}, {worst.seconds / 60:.0f} "
            f"minutes, {worst.shards:,} shards, driver busy {worst.driver_share:.1%}"
        )
    lines += [
        "",
        f"The zoo of 188 in a random order, 512 workers; `bench run` has {MOST_AT_ONCE} at once.",
    ]
    loads = zoo(fit)
    for at_once in (MOST_AT_ONCE, 16, 1):
        each = simulate(loads, Cluster(512, at_once, driver), 0)
        total = 512 * each.seconds
        lines.append(
            f"{at_once:>3} at once: efficiency {each.efficiency:.3f}, {each.seconds / 3600:.1f} h, "
            f"loading {each.loading / total:.1%}, shards that do not fill a GPU "
            f"{(each.working - each.alone) / total:.1%}, idle "
            f"{1 - (each.loading + each.working) / total:.1%}, driver busy {each.driver_share:.1%}"
        )
        click.echo(lines[-1])
    (RESULTS / "scaling.txt").write_text("\n".join(lines) + "\n")
    click.echo("\n".join(lines))


if __name__ == "__main__":
    main()
