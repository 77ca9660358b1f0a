"""Two workers of one thread each beside one: the speedup, in short rounds that take turns.

    python benchmarks/two_workers.py --rounds 3

Each round takes the same samples once with one worker, in this process, and once with two, which
are forked; candidates are prepared anew every time. It also takes them twice at the same time, by
two processes that know nothing of each other: what both cores together are worth on this machine,
and so the most that sharing can reach. Two speedups are printed. That by the clock
also counts the time in which a worker waits for a core that other programs have, and two workers
wait more than one. That by processors does not: it is what one worker takes of a processor, divided
by those of the longest way through two (all that the driver takes, then the busier worker of each
chain of stages). The second is what a machine without other work would show, if both cores
together are as fast as each alone. Every shard is recorded, for `benchmarks/scaling.py`. Results
are appended to benchmarks/results/two_workers.jsonl.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import statistics
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import click
import psutil
import torch

from bench import data
from bench.candidates.registry import find_candidates
from bench.executors.here import ThisMachine
from bench.runs import environment
from bench.runs.session import Plan, make_plan
from bench.runs.settings import Settings
from bench.suites import load_suite

RESULTS = Path(__file__).parent / "results" / "two_workers.jsonl"


@dataclass(frozen=True)
class Work:
    """What both sides do."""

    suite: str
    candidate: str
    protocol: str
    samples: int


WORKS = {
    "cifar10, evaluation": Work("cifar10-linf", "cifar10-robust", "standard", 320),
    "digits, evaluation": Work("digits-linf", "digits-robust", "standard", 360),
    "cifar10, certification": Work("cifar10-l2", "cifar10-gaussian", "certified", 24),
    "digits, certification": Work("digits-l2", "digits-gaussian", "certified", 120),
}
DRAWS = {"cifar10": 3_000, "digits": 25_000}
"""Draws of a certificate; fewer than the suites', so that a round is short."""
SHORTER: dict[str, dict[str, dict[str, int]]] = {
    "cifar10-linf": {
        "apgd-ce": {"steps": 30},
        "apgd-t": {"steps": 15, "targets": 3},
        "fab-t": {"steps": 15, "targets": 3},
        "square": {"queries": 150},
    },
}
"""Parameters of attacks that are shorter than the protocol's, for the same reason."""


@dataclass
class Recorder:
    """Keeps what an executor tells."""

    shards: list[dict[str, Any]] = field(default_factory=list)
    processors: dict[str, dict[int, float]] = field(default_factory=dict)
    """A processor's seconds that each process of a chain has taken, by the chain and its number."""

    def work_begins(self, stages: Sequence[str], workers: int) -> None:
        """Nothing is kept."""

    def worker_joins(self, worker: str) -> None:
        """Nothing is kept."""

    def worker_lost(self, worker: str, reason: str) -> None:
        """Nothing is kept."""

    def worker_leaves(self, worker: str) -> None:
        """Nothing is kept."""

    def shard_begins(self, worker: str, stage: str, samples: int) -> None:
        """Nothing is kept."""

    def shard_ends(
        self, worker: str, stage: str, samples: int, seconds: float, cost: float
    ) -> None:
        """Keep a shard."""
        found = {"stage": stage, "samples": samples, "seconds": seconds, "cost": cost}
        self.shards.append({"worker": worker, **found})
        chain = "clean" if stage == "clean" else "rest"
        for process in multiprocessing.active_children():
            if process.pid is not None:
                times = psutil.Process(process.pid).cpu_times()
                taken = times.user + times.system
                self.processors.setdefault(chain, {})[process.pid] = taken

    @property
    def longest(self) -> float:
        """Seconds of the busiest process of each chain, added up."""
        return sum(max(each.values()) for each in self.processors.values())


def planned(work: Work, data_dir: Path | None) -> Plan:
    """Return a run of some work, not begun."""
    suite = load_suite(work.suite)
    (reference,) = find_candidates([work.candidate], suite)
    settings = Settings(suite, protocol=work.protocol, n_examples=work.samples)
    samples = data.load_source(suite.data, data_dir, work.samples)
    plan = make_plan(reference.load(), samples, settings)
    task: Any = plan.task
    if work.protocol == "certified":
        draws = DRAWS[work.suite.partition("-")[0]]
        task = replace(task, smoothing=replace(task.smoothing, noise_samples=draws))
    else:
        attacks = (
            each.model_copy(update={"parameters": SHORTER.get(work.suite, {}).get(each.name, {})})
            for each in task.attacks
        )
        task = replace(task, attacks=tuple(attacks))
    return replace(plan, task=task)


def measured(plan: Plan, workers: int) -> dict[str, Any]:
    """Do a run with so many workers; return its times."""
    recorder = Recorder()
    machine = ThisMachine(workers)
    before, start = time.process_time(), time.perf_counter()
    try:
        followed = machine.following(recorder)
        blocks = list(plan.engine.run(plan.task, {}, lambda _: None, followed))
    finally:
        machine.close()
    seconds, driver = time.perf_counter() - start, time.process_time() - before
    return {
        "workers": workers,
        "seconds": seconds,
        "processor_seconds": driver + recorder.longest,
        "driver_seconds": driver,
        "processes": {name: list(each.values()) for name, each in recorder.processors.items()},
        "blocks": len(blocks),
        "shards": recorder.shards,
    }


def beside_another(plan: Plan) -> float:
    """Return the seconds of a run in this process while another process makes the same run."""
    other = multiprocessing.get_context("fork").Process(target=measured, args=(plan, 1))
    other.start()
    seconds: float = measured(plan, 1)["seconds"]
    other.terminate()
    other.join()
    return seconds


@click.command()
@click.option("--work", "names", multiple=True, type=click.Choice(list(WORKS)))
@click.option("--rounds", default=3, show_default=True)
@click.option("--data-dir", type=click.Path(path_type=Path), envvar="BENCH_DATA_DIR")
def main(names: tuple[str, ...], rounds: int, data_dir: Path | None) -> None:
    """Take turns, print the speedups, and keep what was measured."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", FutureWarning)
    for name in names or WORKS:
        plan = planned(WORKS[name], data_dir)
        ratios: dict[str, list[float]] = {"seconds": [], "processor_seconds": []}
        bounds = []
        for number in range(rounds):
            one, two = (measured(plan, workers) for workers in (1, 2))
            beside = beside_another(plan)
            with RESULTS.open("a") as file:
                for each in (one, two):
                    record = {"work": name, **vars(WORKS[name]), "round": number, **each}
                    record |= {"load": os.getloadavg()[0], "started": environment.now()}
                    record |= {"seconds_beside_another": beside}
                    file.write(json.dumps(record) + "\n")
            for kind, found in ratios.items():
                found.append(one[kind] / two[kind])
            bounds.append(2 * one["seconds"] / beside)
            click.echo(
                f"{name}, round {number + 1}: clock {one['seconds']:.1f} s and "
                f"{two['seconds']:.1f} s; processors {one['processor_seconds']:.1f} s and "
                f"{two['processor_seconds']:.1f} s; beside another run {beside:.1f} s"
            )
        for kind, found in ratios.items():
            median, best = statistics.median(found), max(found)
            click.echo(f"{name}, speedup by {kind}: median {median:.2f}, best {best:.2f}")
        click.echo(f"{name}, what both cores are worth: median {statistics.median(bounds):.2f}")


if __name__ == "__main__":
    main()
