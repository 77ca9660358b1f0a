"""Protocol express beside standard AutoAttack: accuracy, passes, time, and what is said to be left.

Each row is one network, one selection of images and one seed. AutoAttack's number is of the same
images: from a run of the fast engine, or with `--accepted` from this project's accepted results:

    python benchmarks/express.py
    python benchmarks/express.py --case cifar100-robust --accepted --seed 0 --seed 1 --seed 2

Rows are appended to benchmarks/results/express.jsonl; the newest row of each case and seed makes
the table in benchmarks/results/express.txt. A pass with a gradient counts as three without.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import torch

import bench
from bench.claims.accepted import load_accepted
from bench.engines.engine import GRADIENT_COST
from bench.runs import environment

RESULTS = Path(__file__).parent / "results" / "express.jsonl"
TABLE = RESULTS.with_suffix(".txt")
OWN = Path(__file__).parent / "networks"


@dataclass(frozen=True)
class Case:
    """A network under a suite, and the images that are taken.

    Attributes:
        model: a submission's name or folder.
        tuned: the settings of the planner were chosen with this network in sight.
    """

    suite: str
    model: str
    n_examples: int | None = None
    eps: str | None = None
    protocol: str = "standard"
    tuned: bool = False


CASES = {
    "residual-small": Case("cifar10-linf", str(OWN / "residual-small"), 1000, "2/255", tuned=True),
    "residual-silu": Case("cifar10-linf", str(OWN / "residual-silu"), 1000, "2/255"),
    "cifar10-robust": Case("cifar10-linf", "cifar10-robust", 1000, tuned=True),
    "cifar100-robust": Case("cifar100-linf", "cifar100-robust", 1000, tuned=True),
    "cifar100-adaptive-mix": Case(
        "cifar100-linf", "cifar100-adaptive-mix", 1000, protocol="adaptive"
    ),
    "digits-robust": Case("digits-linf", "digits-robust"),
    "digits-adaptive-mix": Case("digits-linf", "digits-adaptive-mix", protocol="adaptive"),
    "digits-smoothmix": Case("digits-l2", "digits-smoothmix"),
    "digits-gaussian": Case("digits-l2", "digits-gaussian"),
    "residual-small L2": Case("cifar10-l2", str(OWN / "residual-small"), 1000, "0.1"),
}


@dataclass(frozen=True)
class Row:
    """One case with one seed; accuracies and what is left as fractions.

    Attributes:
        autoattack: robust accuracy after every attack of the case's own protocol.
        autoattack_cost, express_cost: forward passes an image; None where AutoAttack's number is an
            accepted one.
        left: expected, low and high; None where the protocol's own attacks followed.
    """

    case: str
    seed: int
    n: int
    clean: float
    autoattack: float
    autoattack_cost: float | None
    autoattack_seconds: float | None
    express: float
    express_cost: float
    express_seconds: float
    left: tuple[float, float, float] | None
    escalated: str
    environment: dict[str, Any]


def cost(evaluation: bench.Evaluation, n: int) -> float:
    """Return the passes of an evaluation an image, as forward passes."""
    attacks = evaluation.attacks
    gradients = GRADIENT_COST * float(attacks["backward_passes"].sum())
    return (float(attacks["forward_passes"].sum()) + gradients) / n


def measured(name: str, seed: int, folder: Path, accepted: bool) -> Row:
    """Evaluate a case by both protocols."""
    case = CASES[name]
    common: dict[str, Any] = {
        "n_examples": case.n_examples,
        "eps": case.eps,
        "seed": seed,
        "results_dir": folder,
        "progress": False,
    }
    express = bench.evaluate(case.model, case.suite, protocol="express", **common)
    n = len(express.samples)
    if accepted:
        robust, own_cost, seconds = accepted_number(case, n), None, None
    else:
        own = bench.evaluate(case.model, case.suite, protocol=case.protocol, **common)
        robust, own_cost, seconds = own.robust_accuracy, cost(own, n), own.summary.seconds
    summary = express.summary
    left = summary.left
    return Row(
        case=name,
        seed=seed,
        n=n,
        clean=express.clean_accuracy,
        autoattack=robust,
        autoattack_cost=own_cost,
        autoattack_seconds=seconds,
        express=express.robust_accuracy,
        express_cost=cost(express, n),
        express_seconds=summary.seconds,
        left=None if left is None else (left.expected, left.low, left.high),
        escalated=summary.escalated,
        environment=environment.describe(torch.device("cpu")),
    )


def accepted_number(case: Case, n: int) -> float:
    """Return the accepted robust accuracy of the first n images.

    Raises:
        ClickException: there is none.
    """
    found = [
        row.robust_accuracy
        for row in load_accepted()
        if (row.suite, row.candidate, row.protocol) == (case.suite, case.model, case.protocol)
        and row.engine == "fast"
        and row.n_examples == n
    ]
    if case.eps is not None or not found:
        raise click.ClickException(f"expected an accepted result of {n} images, found none")
    return found[0]


def table(rows: Sequence[Row]) -> str:
    """Return the newest row of each case and seed as text, and the means below."""
    newest = {(row.case, row.seed): row for row in rows}
    order = list(CASES)
    lines = [
        f"{'network':<23}{'seed':>5}{'n':>6}{'clean':>8}{'AutoAttack':>12}{'express':>9}"
        f"{'difference':>12}{'passes':>9}{'ratio':>7}{'time':>8}{'left, 95%':>20}"
    ]
    for row in sorted(newest.values(), key=lambda each: (order.index(each.case), each.seed)):
        ratio = (
            "-" if row.autoattack_cost is None else f"{row.autoattack_cost / row.express_cost:.0f}"
        )
        left = row.escalated or "-"
        if row.left is not None:
            left = f"{100 * row.left[0]:.2f} ({100 * row.left[1]:.2f} to {100 * row.left[2]:.2f})"
        name = row.case + (" *" if CASES[row.case].tuned else "")
        lines.append(
            f"{name:<23}{row.seed:>5}{row.n:>6}{100 * row.clean:>8.2f}{100 * row.autoattack:>12.2f}"
            f"{100 * row.express:>9.2f}{100 * (row.express - row.autoattack):>+12.2f}"
            f"{row.express_cost:>9.0f}{ratio:>7}{row.express_seconds:>6.0f} s{left:>20}"
        )
    differences = [row.express - row.autoattack for row in newest.values()]
    mean, most = sum(differences) / len(differences), max(differences)
    lines.append(f"mean difference {100 * mean:+.3f} points, largest {100 * most:+.2f}")
    lines.append(
        "* the planner's settings were chosen on this network; passes: forward ones an image"
    )
    return "\n".join(lines) + "\n"


@click.command()
@click.option("--case", "cases", type=click.Choice(list(CASES)), multiple=True)
@click.option("--seed", "seeds", type=int, multiple=True, default=(0,))
@click.option("--accepted", is_flag=True, help="Take AutoAttack's number from accepted results.")
@click.option("--results-dir", type=click.Path(path_type=Path), help="Keep runs here.")
def main(
    cases: tuple[str, ...], seeds: tuple[int, ...], accepted: bool, results_dir: Path | None
) -> None:
    """Measure cases, all by default, and write the table."""
    with tempfile.TemporaryDirectory() as scratch:
        for name in cases or CASES:
            for seed in seeds:
                row = measured(name, seed, results_dir or Path(scratch), accepted)
                with RESULTS.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(asdict(row)) + "\n")
                click.echo(f"{name}, seed {seed}: {row.express:.4f} for {row.autoattack:.4f}")
    rows = [Row(**json.loads(line)) for line in RESULTS.read_text(encoding="utf-8").splitlines()]
    TABLE.write_text(table(rows), encoding="utf-8")
    click.echo(TABLE.read_text(encoding="utf-8"), nl=False)


if __name__ == "__main__":
    main()
