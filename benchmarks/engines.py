"""The fast engine beside the reference, attack by attack, and beside the limit that passes set.

    python benchmarks/engines.py --suite cifar100-linf --candidate cifar100-robust --n-examples 200

Both engines attack the same samples of the same candidate with the same seed, in one process; the
reference first, as it runs there before the fast engine changes how the process keeps memory, and
the rates last. Whatever the fast engine compiles it compiles anew, and that counts. The pass
limit is the time that the fast engine's passes would take at the network's best measured rates
at that precision: (forward passes / forward rate) + (forward-backward passes / their rate). The
share of the limit that is reached is the limit divided by the time taken; the share of the device's
peak is the floating-point operations of those passes against the rate of a large matrix product.
Results are appended to benchmarks/results/engines.jsonl with the machine they were measured on.

Networks without trained weights can be timed too: --architecture builds one, and --own-labels
takes its own predictions for labels; at a small --eps most samples then survive, as those of a
robust network do.
"""

from __future__ import annotations

import importlib
import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import torch
import yaml
from torch import Tensor

from bench import data
from bench.attacks import Model
from bench.candidates import Candidate
from bench.candidates.registry import find_candidates
from bench.engines import AttackTask, Engine, make_engine
from bench.engines.acceleration import PRECISIONS, accelerate
from bench.engines.batch_size import operations
from bench.engines.compilation import compile_if_worth
from bench.engines.fast import FastEngine
from bench.precision import tensor_cores
from bench.runs import environment
from bench.runs.evaluation import Evaluation
from bench.runs.session import make_plan
from bench.runs.settings import Settings
from bench.store.tables import Tables
from bench.suites import load_suite

RESULTS = Path(__file__).parent / "results" / "engines.jsonl"
RATE_BATCHES = {"cpu": (64, 128, 256, 512), "cuda": (256, 512, 1024, 2048, 4096)}
SECONDS_A_RATE = 1.5


@click.command()
@click.option("--suite", "suite_name", default="digits-linf", show_default=True)
@click.option("--candidate", default="digits-robust", show_default=True)
@click.option(
    "--architecture", help="module:function[:YAML arguments] with random weights instead."
)
@click.option("--own-labels", is_flag=True, help="Labels are the network's clean predictions.")
@click.option("--attack", "attacks", multiple=True, help="Only these of the protocol's attacks.")
@click.option("--n-examples", default=100, show_default=True)
@click.option("--eps", type=float, help="Another radius than the suite's.")
@click.option("--seed", default=0, show_default=True)
@click.option("--precision", type=click.Choice(PRECISIONS), default="float32", show_default=True)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--data-dir", type=click.Path(path_type=Path), envvar="BENCH_DATA_DIR")
@click.option("--skip-reference", is_flag=True, help="Only the fast engine and the limit.")
def main(
    suite_name: str,
    candidate: str,
    architecture: str | None,
    own_labels: bool,
    attacks: tuple[str, ...],
    n_examples: int,
    eps: float | None,
    seed: int,
    precision: str,
    device: str,
    data_dir: Path | None,
    skip_reference: bool,
) -> None:
    """Print the table, and keep it."""
    suite = load_suite(suite_name)
    if architecture is None:
        (reference,) = find_candidates([candidate], suite)
        loaded = reference.load()
    else:
        candidate, loaded = architecture, _random(architecture)
    samples = data.load_source(suite.data, data_dir, n_examples)
    settings = Settings(
        suite,
        engine="reference",
        seed=seed,
        device=torch.device(device),
        n_examples=n_examples,
        eps=eps,
    )
    task = make_plan(loaded, samples, settings).task
    if attacks:
        task = replace(task, attacks=tuple(each for each in task.attacks if each.name in attacks))
    if own_labels:
        task = replace(task, labels=_predictions(task))
    reference = None if skip_reference else _measure(make_engine("reference"), task)
    engine: Engine = FastEngine(precision)
    size = engine.default_batch_size(task.module, task.images[:4].to(task.device))
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder  # an earlier run's code would flatter
        fast = _measure(engine, replace(task, batch_size=size))
        rates = _rates(task, precision)
    row: dict[str, Any] = {
        "suite": suite.name,
        "candidate": candidate,
        "n_examples": n_examples,
        "eps": task.threat_model.eps,
        "precision": precision,
        "rates": rates,
        "batch_size": size,
        "flops": _flops(task),
        "peak_flops": _peak_flops(task.device, precision),
        "environment": environment.describe(settings.device),
    }
    for attack in fast["attacks"].values():
        passes = ("forward", "forward_backward")
        attack["limit"] = sum(attack[each] / rates[each] for each in passes)
    row["fast"] = fast
    if reference is not None:
        row["reference"] = reference
        row["ratio"] = reference["seconds"] / row["fast"]["seconds"]
    _print(row)
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def _random(architecture: str) -> Candidate:
    """A network with random weights."""
    location, _, rest = architecture.partition(":")
    name, _, arguments = rest.partition(":")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = getattr(importlib.import_module(location), name)(
            **yaml.safe_load(arguments or "{}")
        )
    return Candidate(architecture, module.eval(), {}, architecture)


def _predictions(task: AttackTask) -> Tensor:
    with torch.no_grad():
        parts = [
            task.module(part.to(task.device)).argmax(dim=1).cpu()
            for part in task.images.split(task.batch_size)
        ]
    return torch.cat(parts)


def _flops(task: AttackTask) -> dict[str, float]:
    """Operations of an image's passes; the way back to the image costs as much as forward."""
    forward = operations(task.module, task.images[:8].to(task.device)) or 0.0
    return {"forward": forward, "forward_backward": 2 * forward}


def _peak_flops(device: torch.device, precision: str) -> float:
    """Operations a second of a large matrix product at a precision."""
    size = 8192 if device.type == "cuda" else 1024
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    left = torch.randn(size, size, device=device, dtype=dtype)

    def product(right: Tensor) -> None:
        torch.mm(left, right)

    with tensor_cores(precision == "tf32"):
        return 2 * size**3 * _calls_a_second(product, left)


def _rates(task: AttackTask, precision: str) -> dict[str, float]:
    """Best measured images a second, forward and forward-backward, compiled or not."""
    images = task.images[:128].to(task.device)
    fast = accelerate(task.module, images[:16], precision)
    compiled = compile_if_worth(
        fast, images, task.labels[:128].to(task.device), float("inf"), finished={}
    )
    best = {"forward": 0.0, "forward_backward": 0.0}
    for model in {fast.model, compiled.model}:
        for name, rate in _rates_of(model, task, precision).items():
            best[name] = max(best[name], rate)
    return best


def _rates_of(model: Model, task: AttackTask, precision: str) -> dict[str, float]:
    def forward(inputs: Tensor) -> None:
        with torch.no_grad():
            model(inputs)

    def gradient(inputs: Tensor) -> None:
        inputs = inputs.detach().requires_grad_()
        torch.autograd.grad(model(inputs).logsumexp(dim=1).sum(), inputs)

    best = {"forward": 0.0, "forward_backward": 0.0}
    for size in RATE_BATCHES[task.device.type]:
        inputs = task.images[torch.arange(size) % len(task.images)].to(task.device)
        for name, work in (("forward", forward), ("forward_backward", gradient)):
            with tensor_cores(precision == "tf32"):
                best[name] = max(best[name], size * _calls_a_second(work, inputs))
    return best


def _calls_a_second(work: Callable[[Tensor], None], inputs: Tensor) -> float:
    work(inputs)
    _wait(inputs.device)
    start, calls = time.perf_counter(), 0
    while time.perf_counter() - start < SECONDS_A_RATE:
        work(inputs)
        calls += 1
        _wait(inputs.device)
    return calls / (time.perf_counter() - start)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _measure(engine: Engine, task: AttackTask) -> dict[str, Any]:
    start = time.perf_counter()
    blocks = list(engine.run(task, {}, lambda _: None))
    seconds = time.perf_counter() - start
    tables: Tables = Evaluation().join(blocks)
    attacks = {}
    for attack in (choice.name for choice in task.attacks):
        rows = tables.attempts[tables.attempts["attack"] == attack]
        forward = float(rows["forward_passes"].sum())
        gradient = float(rows["backward_passes"].sum())
        attacks[attack] = {
            "seconds": sum(block.seconds for block in blocks if f"-{attack}-" in block.key),
            "broken": int((rows["outcome"] == "broken").sum()),
            "forward": forward,
            "forward_backward": gradient,
        }
    robust = float(tables.samples["robust"].mean())
    record = {
        name: value
        for block in blocks
        for name, value in block.record.items()
        if type(value) is str
    }
    return {
        "seconds": seconds,
        "robust_accuracy": robust,
        "attacks": attacks,
        "record": record,
    }


def _print(row: dict[str, Any]) -> None:
    rates = row["rates"]
    click.echo(
        f"{row['candidate']}, {row['n_examples']} images, {row['precision']}: best rates "
        f"{rates['forward']:,.0f} forward, {rates['forward_backward']:,.0f} forward-backward "
        "images/s"
    )
    click.echo(f"{'attack':<9}{'reference':>11}{'fast':>9}{'ratio':>7}{'limit':>9}{'reached':>9}")
    fast, reference = row["fast"]["attacks"], row.get("reference", {}).get("attacks", {})
    for name, ours in fast.items():
        theirs = reference.get(name, {}).get("seconds")
        click.echo(_line(name, theirs, ours["seconds"], ours["limit"]))
    limit = sum(attack["limit"] for attack in fast.values())
    whole = row.get("reference", {}).get("seconds")
    click.echo(_line("all", whole, row["fast"]["seconds"], limit))
    operations = sum(
        attack[name] * row["flops"][name]
        for attack in fast.values()
        for name in ("forward", "forward_backward")
    )
    share = operations / row["fast"]["seconds"] / row["peak_flops"]
    click.echo(f"of the device's measured peak, {row['peak_flops']:.2e} FLOP/s: {100 * share:.0f}%")
    for name, value in row["fast"]["record"].items():
        click.echo(f"{name}: {value}")
    accuracies = [f"fast {row['fast']['robust_accuracy']:.4f}"]
    if "reference" in row:
        accuracies.append(f"reference {row['reference']['robust_accuracy']:.4f}")
    click.echo(f"robust accuracy: {', '.join(accuracies)}")


def _line(name: str, theirs: float | None, ours: float, limit: float) -> str:
    reference = "-" if theirs is None else f"{theirs:.1f} s"
    ratio = "-" if theirs is None else f"{theirs / max(ours, 1e-9):.1f}"
    reached = f"{100 * limit / max(ours, 1e-9):.0f}%"
    return f"{name:<9}{reference:>11}{ours:>7.1f} s{ratio:>7}{limit:>7.1f} s{reached:>9}"


if __name__ == "__main__":
    main()
