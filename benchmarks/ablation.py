"""What each speed-up brings alone, on a small network and on one of ResNet-18's size, on a CPU.

Every measurement has a process of its own and is made twice, with the speed-up and without it; all
else stays the same. The two take turns, and the fastest round of each counts:

    python benchmarks/ablation.py --only processes
    python benchmarks/ablation.py --network residual-small --only memory --only noise --rounds 5

| speed-up   | what is timed                                     | without it                     |
|------------|---------------------------------------------------|--------------------------------|
| processes  | wall time of an APGD run of the fast engine       | one process has all threads    |
| passes     | CPU time of steps of APGD and Square              | passes are not compiled        |
| arithmetic | CPU time of steps of APGD, FAB and Square         | `Attack.compile` is not called |
| memory     | CPU time of steps of APGD, of certification draws | freed memory is not kept       |
| noise      | CPU time of certification draws                   | the attacks' generator is used |

The switches are in `Measurement`; products have no options for them. Steps and draws run on one
thread, and their CPU time hardly depends on other processes. The wall time of `processes` does: the
table has the load average. Compiling is counted apart, as the seconds that the first use takes.
Rows are appended to benchmarks/results/ablation.jsonl; the newest row of each measurement makes the
table in benchmarks/results/ablation.txt.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor, nn

from bench.attacks.draws import keyed_draws
from bench.attacks.registry import plan_attack
from bench.candidates.architectures import residual_network
from bench.candidates.registry import find_candidates
from bench.certification.batched import certify_many
from bench.certification.noise import Noise, Piece
from bench.certification.procedure import FixedProcedure
from bench.certification.smoothing import Smoothing
from bench.decision import classes_of
from bench.engines import AttackTask, acceleration, compilation, fast
from bench.engines.batch_size import filling_size
from bench.executors import here
from bench.executors.here import ThisMachine
from bench.runs import environment
from bench.suites import ThreatModel, load_suite
from bench.suites.suite import AttackChoice

RESULTS = Path(__file__).parent / "results" / "ablation.jsonl"
TABLE = RESULTS.with_suffix(".txt")
OWN = Path(__file__).parent / "networks"
CLASSES = 10
SHAPE = (3, 32, 32)
EPS = 0.5 / 255
"""So small that hardly any image breaks, and all measurements do the same work."""
CPU = torch.device("cpu")
WARM_UP = 3
"""Steps that are not timed; the compiler works during them."""
DRAWS = "draws"
"""Stands for certification in the place of an attack's name."""
SPEED_UPS: dict[str, tuple[str, ...]] = {
    "processes": ("apgd-ce",),
    "passes": ("apgd-ce", "square"),
    "arithmetic": ("apgd-ce", "fab-t", "square"),
    "memory": ("apgd-ce", DRAWS),
    "noise": (DRAWS,),
}
"""Each speed-up, and the work on which it is measured."""


def _own(name: str) -> nn.Module:
    (found,) = find_candidates([str(OWN / name)], load_suite("cifar10-linf"))
    return found.load().module


def _resnet18() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return residual_network(CLASSES, (64, 128, 256, 512), (2, 2, 2, 2), 64).eval()


@dataclass(frozen=True)
class Network:
    """A network, and how much work is enough to time it.

    Attributes:
        make: builds it.
        steps: of an attack, on a full batch.
        batches: of certification draws.
        images: in an engine's run.
        run_steps: of APGD in an engine's run.
    """

    make: Callable[[], nn.Module]
    steps: int
    batches: int
    images: int
    run_steps: int


NETWORKS = {
    "residual-small": Network(
        partial(_own, "residual-small"), steps=20, batches=8, images=256, run_steps=60
    ),
    "residual-silu": Network(
        partial(_own, "residual-silu"), steps=20, batches=8, images=256, run_steps=60
    ),
    "ResNet-18": Network(_resnet18, steps=2, batches=1, images=32, run_steps=8),
}


@dataclass(frozen=True)
class Measurement:
    """One speed-up on one network and one kind of work, with it or without."""

    network: str
    speed_up: str
    work: str
    enabled: bool
    threads: int

    def taken(self) -> tuple[float, float, str]:
        """Return the seconds of the work, those that a compiler took, and what came of compiling.

        Call it in a new process: it changes modules and the process's memory.
        """
        torch.set_num_threads(self.threads if self.speed_up == "processes" else 1)
        if self.speed_up == "memory" and not self.enabled:
            acceleration.keep_freed_memory = lambda device: False  # type: ignore[attr-defined]
        network = NETWORKS[self.network]
        if self.speed_up == "processes":
            return self._run(network), 0.0, ""
        if self.work == DRAWS:
            return self._draws(network), 0.0, ""
        return self._steps(network)

    def _run(self, network: Network) -> float:
        """Return the wall time of the fast engine's APGD, without compiling."""
        compilation.WORTH_SECONDS = math.inf
        executor = ThisMachine(None if self.enabled else 1)
        module, images = network.make(), _images(network.images)
        engine = fast.FastEngine()
        task = AttackTask(
            module=module,
            images=images,
            labels=_labels(module, images),
            indices=torch.arange(len(images)),
            classes=CLASSES,
            threat_model=ThreatModel(norm="Linf", eps=EPS),
            seed=0,
            batch_size=engine.default_batch_size(module, images[:1]),
            device=CPU,
            attacks=(AttackChoice(name=self.work, parameters={"steps": network.run_steps}),),
        )
        start = time.perf_counter()
        here.WORTH_SECONDS = 0.0
        blocks = list(engine.run(task, {}, lambda _: None, executor))
        seconds = time.perf_counter() - start
        shared = any("processes" in block.record for block in blocks)
        if shared != self.enabled:
            raise click.ClickException(f"expected processes: {self.enabled}, got {shared}")
        return seconds

    def _steps(self, network: Network) -> tuple[float, float, str]:
        module = network.make()
        size = filling_size(module, _images(1))
        images = _images(size)
        labels = _labels(module, images)
        plan = plan_attack(self.work, {}, norm="Linf", eps=EPS, classes=CLASSES)
        accelerated = acceleration.accelerate(module, images[:16], "float32")
        compiling, note = 0.0, ""
        if self.speed_up == "passes" and self.enabled:
            start = time.perf_counter()
            with_gradients = labels if plan.needs_gradient else None
            accelerated = compilation.compile_if_worth(
                accelerated, images, with_gradients, math.inf, finished={}
            )
            compiling, note = time.perf_counter() - start, accelerated.record["compiled"]
        targets = (labels + 1) % CLASSES
        state = plan.attack.start(
            images, labels, keyed_draws(0, torch.arange(size), self.work), targets
        )
        if self.speed_up == "arithmetic" and self.enabled:
            plan.attack.compile()
        start = time.perf_counter()
        for _ in range(WARM_UP):  # Square changes images from its second step on
            plan.attack.step(accelerated.model, state)
        if self.speed_up == "arithmetic" and self.enabled:
            compiling, note = time.perf_counter() - start, plan.attack.compile_problem
        start = time.process_time()
        for _ in range(network.steps):
            plan.attack.step(accelerated.model, state)
        return (time.process_time() - start) / network.steps, compiling, note

    def _draws(self, network: Network) -> float:
        module = network.make()
        size = filling_size(module, _images(1), gradients=False)
        image = _images(1)
        accelerated = acceleration.accelerate(module, image, "float32")
        noise = Noise(0) if self.enabled or self.speed_up != "noise" else AttackStreams(0)

        def certify(draws: int) -> None:
            procedure = FixedProcedure(Smoothing(0.25, size, draws))
            with torch.no_grad():
                for _ in certify_many(
                    lambda noisy: classes_of(accelerated.model(noisy)),
                    image,
                    torch.zeros(1, dtype=torch.int64),
                    CLASSES,
                    procedure,
                    noise,
                    size,
                ):
                    pass

        certify(size)
        start = time.process_time()
        certify(network.batches * size)
        return (time.process_time() - start) / (network.batches + 1)


class AttackStreams(Noise):
    """Normal numbers of the generator that the attacks draw from: Philox4x32 in torch."""

    def normal(self, pieces: Sequence[Piece], shape: Sequence[int]) -> Tensor:
        """See `Noise`."""
        indices = torch.cat([torch.full((piece.count,), piece.index) for piece in pieces])
        events = torch.cat([torch.arange(each.first, each.first + each.count) for each in pieces])
        draws = keyed_draws(self.seed, indices, "certify")
        return draws.normal(events, math.prod(shape), torch.float32).reshape(-1, *shape)


def _images(count: int) -> Tensor:
    return torch.rand((count, *SHAPE), generator=torch.Generator().manual_seed(1))


def _labels(module: nn.Module, images: Tensor) -> Tensor:
    """Return the network's own predictions, so that all images stand at first."""
    with torch.no_grad():
        return torch.cat([module(part).argmax(dim=1) for part in torch.split(images, 64)])


@dataclass(frozen=True)
class Row:
    """The result of a measurement.

    Attributes:
        seconds_with, seconds_without: of the fastest round: of a run for processes, else of a step
            or a pass on a full batch.
        compiling: seconds of the slowest round, which has to compile; 0 where nothing is compiled.
        load: load average of the machine, of the last minute.
        note: what came of compiling; passes that gain less than 10% stay as they are.
    """

    network: str
    speed_up: str
    work: str
    seconds_with: float
    seconds_without: float
    compiling: float
    rounds: int
    threads: int
    load: float
    environment: dict[str, Any]
    note: str = ""

    @property
    def gain(self) -> float:
        """How many times as fast the work is with the speed-up."""
        return self.seconds_without / self.seconds_with


def measured(network: str, speed_up: str, work: str, rounds: int, threads: int) -> Row:
    """Measure with a speed-up and without it, in turns, each time in a new process."""
    best = {True: math.inf, False: math.inf}
    compiling, note = 0.0, ""
    for _ in range(rounds):
        for enabled in best:
            measurement = Measurement(network, speed_up, work, enabled, threads)
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
                seconds, compiled, said = process.submit(measurement.taken).result()
            best[enabled] = min(best[enabled], seconds)
            compiling, note = max(compiling, compiled), said or note
    return Row(
        network=network,
        speed_up=speed_up,
        work=work,
        seconds_with=best[True],
        seconds_without=best[False],
        compiling=compiling,
        rounds=rounds,
        threads=threads if speed_up == "processes" else 1,
        load=os.getloadavg()[0],
        environment=environment.describe(CPU),
        note=note,
    )


def table(rows: Sequence[Row]) -> str:
    """Return the newest row of each measurement as text, in the order of speed-ups."""
    newest = {(row.speed_up, row.work, row.network): row for row in rows}
    lines = [
        f"{'speed-up':<11}{'work':<9}{'network':<16}{'without':>11}{'with':>11}{'gain':>7}"
        f"{'compiling':>11}{'load':>6}"
    ]
    order = list(SPEED_UPS)
    for _, row in sorted(
        newest.items(),
        key=lambda each: (order.index(each[0][0]), each[0][1], list(NETWORKS).index(each[0][2])),
    ):
        compiling = f"{row.compiling:.0f} s" if row.compiling else "-"
        lines.append(
            f"{row.speed_up:<11}{row.work:<9}{row.network:<16}"
            f"{1e3 * row.seconds_without:>8,.0f} ms{1e3 * row.seconds_with:>8,.0f} ms"
            f"{row.gain:>7.2f}{compiling:>11}{row.load:>6.1f}  {row.note}".rstrip()
        )
    return "\n".join(lines) + "\n"


@click.command()
@click.option("--only", "names", type=click.Choice(list(SPEED_UPS)), multiple=True)
@click.option("--network", "networks", type=click.Choice(list(NETWORKS)), multiple=True)
@click.option("--work", "works", multiple=True, help="Only these attacks, or draws.")
@click.option("--rounds", default=3, show_default=True)
@click.option("--threads", default=2, show_default=True, help="Of the run for processes.")
def main(
    names: tuple[str, ...],
    networks: tuple[str, ...],
    works: tuple[str, ...],
    rounds: int,
    threads: int,
) -> None:
    """Measure, keep the rows, and print the table of all that was ever measured."""
    RESULTS.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder  # an earlier run's code would flatter
        for name in names or SPEED_UPS:
            for work in SPEED_UPS[name]:
                for network in networks or NETWORKS:
                    if works and work not in works:
                        continue
                    row = measured(network, name, work, rounds, threads)
                    with RESULTS.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(asdict(row)) + "\n")
                    click.echo(f"{name}, {work}, {network}: {row.gain:.2f} times as fast")
    rows = [Row(**json.loads(line)) for line in RESULTS.read_text("utf-8").splitlines()]
    TABLE.write_text(table(rows), encoding="utf-8")
    click.echo(table(rows))


if __name__ == "__main__":
    main()
