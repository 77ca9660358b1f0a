"""Protocol express beside standard AutoAttack: accuracy, passes, time, and what is said to be left.

One line of benchmarks/results/express.jsonl is one evaluation of a network: by `express`, by the
protocol that it is held against (`autoattack`), or by `thorough`, which pulls every arm of express,
with another seed, for all samples that stood the others. The newest lines make the table in
benchmarks/results/express.txt.

    python benchmarks/express.py --protocol express --seed 0 --seed 1 --seed 2
    python benchmarks/express.py --case digits-robust --protocol autoattack --protocol thorough

AutoAttack's number is that of the same images, from a run of the fast engine; where there is none,
it is this project's accepted result. A pass with a gradient counts as three without. Times are
those of the processor (of this process and its children), since machines are shared.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
import torch
from schedules import Course

import bench
from bench import data
from bench.attacks.standard import standard_autoattack
from bench.attacks.target_ranking import RANKED_CLASSES
from bench.candidates.registry import find_candidates
from bench.claims.accepted import load_accepted
from bench.engines import AttackTask
from bench.engines.engine import GRADIENT_COST, survivor_cost
from bench.engines.express import arms
from bench.engines.target_order import TargetOrder
from bench.runs import environment
from bench.runs.session import make_plan
from bench.runs.settings import Settings
from bench.suites import load_suite

RESULTS = Path(__file__).parent / "results" / "express.jsonl"
TABLE = RESULTS.with_suffix(".txt")
OWN = Path(__file__).parent / "networks"
RANKING_COST = 1 + (GRADIENT_COST - 1) * RANKED_CLASSES
"""Of the nearest classes of a sample: a pass forward, and one back for each class."""
PROTOCOLS = ("express", "autoattack", "thorough")
THOROUGH_SEED = 1000


@dataclass(frozen=True)
class Case:
    """A network under a suite, and the images that are taken.

    Attributes:
        model: a submission's name or folder.
        protocol: whose number express is held against.
        tuned: the settings of the planner were chosen with this network in sight.
    """

    suite: str
    model: str
    n_examples: int | None = None
    eps: str | None = None
    protocol: str = "standard"
    tuned: bool = False


CASES = {
    "residual-small": Case("cifar10-linf", str(OWN / "residual-small"), 100, "2/255", tuned=True),
    "residual-relu": Case("cifar10-linf", str(OWN / "residual-relu"), 100, "2/255"),
    "residual-silu": Case("cifar10-linf", str(OWN / "residual-silu"), 100, "2/255"),
    "residual-gelu": Case("cifar100-linf", str(OWN / "residual-gelu"), 100, "2/255"),
    "residual-small L2": Case("cifar10-l2", str(OWN / "residual-small"), 100, "0.1", tuned=True),
    "cifar10-robust": Case("cifar10-linf", "cifar10-robust", 1000, tuned=True),
    "cifar10-robust 100": Case("cifar10-linf", "cifar10-robust", 100, tuned=True),
    "cifar10-robust L2": Case("cifar10-l2", "cifar10-robust", 100),
    "cifar100-robust": Case("cifar100-linf", "cifar100-robust", 1000, tuned=True),
    "cifar100-robust 100": Case("cifar100-linf", "cifar100-robust", 100, tuned=True),
    "cifar100-adaptive-mix": Case(
        "cifar100-linf", "cifar100-adaptive-mix", 1000, protocol="adaptive"
    ),
    "digits-robust": Case("digits-linf", "digits-robust", tuned=True),
    "digits-robust L2": Case("digits-l2", "digits-robust", tuned=True),
    "digits-mix": Case("digits-linf", "digits-mix", protocol="adaptive", tuned=True),
    "digits-adaptive-mix": Case(
        "digits-linf", "digits-adaptive-mix", protocol="adaptive", tuned=True
    ),
    "digits-smoothmix": Case("digits-l2", "digits-smoothmix"),
    "digits-gaussian": Case("digits-l2", "digits-gaussian"),
}


@dataclass(frozen=True)
class Evaluated:
    """One evaluation of a case; accuracies and what is left as fractions.

    Attributes:
        protocol: express, autoattack or thorough.
        broken: of each image, in their order, whether it was classified wrongly, clean or attacked;
            as hexadecimal digits, see `packed`.
        cost: forward passes an image.
        seconds, cpu_seconds: of the whole evaluation, by the clock and of the processor.
        load: processes that waited for a processor at the end, as the system counts them.
        left: expected, low and high; None but for express.
        escalated: why the protocol's own attacks followed, if they did.
    """

    case: str
    protocol: str
    seed: int
    n: int
    clean: float
    robust: float
    broken: str
    cost: float
    seconds: float
    cpu_seconds: float
    load: float
    left: tuple[float, float, float] | None
    escalated: str
    environment: dict[str, Any]


def packed(broken: npt.NDArray[np.bool_]) -> str:
    """Return a mask (n,) as hexadecimal digits."""
    return np.packbits(broken).tobytes().hex()


def unpacked(digits: str, n: int) -> npt.NDArray[np.bool_]:
    """Return the mask (n,) of hexadecimal digits."""
    return np.unpackbits(np.frombuffer(bytes.fromhex(digits), np.uint8))[:n].astype(bool)


def cpu_seconds() -> float:
    """Return the processor's time that this process and its children took so far."""
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


def cost(evaluation: bench.Evaluation) -> float:
    """Return the passes of an evaluation, as forward passes; with those that rank classes."""
    attacks = evaluation.attacks
    gradients = GRADIENT_COST * float(attacks["backward_passes"].sum())
    ranked = attacks["attempted"].get("express-nearest-target", 0)
    return float(attacks["forward_passes"].sum()) + gradients + RANKING_COST * float(ranked)


def evaluated(name: str, protocol: str, seed: int, folder: Path) -> Evaluated:
    """Evaluate a case by express, or by the protocol that it is held against."""
    case = CASES[name]
    start, start_cpu = time.perf_counter(), cpu_seconds()
    found = bench.evaluate(
        case.model,
        case.suite,
        protocol="express" if protocol == "express" else case.protocol,
        n_examples=case.n_examples,
        eps=case.eps,
        seed=seed,
        results_dir=folder,
        progress=False,
        again=True,
    )
    seconds, used = time.perf_counter() - start, cpu_seconds() - start_cpu
    samples = found.samples.sort_values("index")
    left = found.summary.left if protocol == "express" else None
    return Evaluated(
        case=name,
        protocol=protocol,
        seed=seed,
        n=len(samples),
        clean=found.clean_accuracy,
        robust=found.robust_accuracy,
        broken=packed(~samples["robust"].to_numpy(dtype=bool)),
        cost=cost(found) / len(samples),
        seconds=seconds,
        cpu_seconds=used,
        load=os.getloadavg()[0],
        left=None if left is None else (left.expected, left.low, left.high),
        escalated=found.summary.escalated if protocol == "express" else "",
        environment=environment.describe(torch.device("cpu")),
    )


def task_of(case: Case) -> AttackTask:
    """Return the task of a case's own protocol."""
    suite = load_suite(case.suite)
    (reference,) = find_candidates([case.model], suite)
    candidate = reference.load()
    samples = data.load_source(suite.data, None, case.n_examples)
    settings = Settings(suite, n_examples=case.n_examples, eps=case.eps, protocol=case.protocol)
    task = make_plan(candidate, samples, settings).task
    assert isinstance(task, AttackTask)
    return task


def thorough(name: str, rows: Sequence[Evaluated]) -> Evaluated:
    """Pull every arm for all samples that stand every other evaluation of a case so far."""
    case = CASES[name]
    task = task_of(case)
    start, start_cpu = time.perf_counter(), cpu_seconds()
    course = Course(task)
    clean = float(course.standing.double().mean())
    for row in rows:
        course.standing &= torch.from_numpy(~unpacked(row.broken, row.n))
    rank = TargetOrder(task, course.fast, {})
    course.use_seed(THOROUGH_SEED)
    for arm in arms(task):
        course.attack(arm, rank=rank)
    broken = ~course.standing.numpy()
    return Evaluated(
        case=name,
        protocol="thorough",
        seed=THOROUGH_SEED,
        n=len(broken),
        clean=clean,
        robust=1 - float(broken.mean()),
        broken=packed(broken),
        cost=course.cost / len(broken),
        seconds=time.perf_counter() - start,
        cpu_seconds=cpu_seconds() - start_cpu,
        load=os.getloadavg()[0],
        left=None,
        escalated="",
        environment=environment.describe(torch.device("cpu")),
    )


def accepted_number(case: Case, n: int) -> float | None:
    """Return the accepted robust accuracy of the first n images; None: there is none."""
    found = [
        row.robust_accuracy
        for row in load_accepted()
        if (row.suite, row.candidate, row.protocol) == (case.suite, case.model, case.protocol)
        and row.engine == "fast"
        and row.n_examples == n
    ]
    return found[0] if found and case.eps is None else None


def least_cost(case: Case, robust: float) -> float:
    """Return what standard AutoAttack takes at least an image, for the samples that stand it."""
    threat = load_suite(case.suite).threat_model
    # Nine targets, as with any ten classes or more; the radius costs nothing.
    plans = standard_autoattack(threat.norm, threat.eps, classes=10)
    return robust * sum(survivor_cost(each) for each in plans)


class Records:
    """The newest evaluation of each case, protocol and seed."""

    def __init__(self, rows: Sequence[Evaluated]) -> None:
        self._newest = {(row.case, row.protocol, row.seed): row for row in rows}

    @classmethod
    def read(cls, path: Path) -> Records:
        """Read a file; an empty one where there is none."""
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return cls([Evaluated(**json.loads(line)) for line in lines])

    def of(self, case: str, *protocols: str) -> list[Evaluated]:
        """Return evaluations of a case by some protocols, by seed."""
        found = (row for row in self._newest.values() if row.case == case)
        return sorted(
            (row for row in found if row.protocol in protocols), key=lambda each: each.seed
        )

    def autoattack(self, case: str, seed: int) -> Evaluated | None:
        """Return AutoAttack's evaluation with a seed, or else with the first one that there is."""
        rows = self.of(case, "autoattack")
        return next((row for row in rows if row.seed == seed), rows[0] if rows else None)


def broken_beyond(records: Records, row: Evaluated) -> int | None:
    """Return how many samples that stood express were broken by any other evaluation.

    An accepted result counts as one of which only the number is known: at least the difference.

    Returns:
        None where there is no other evaluation.
    """
    others = [each for each in records.of(row.case, *PROTOCOLS) if each is not row]
    accepted = accepted_number(CASES[row.case], row.n)
    if not others and accepted is None:
        return None
    stood = ~unpacked(row.broken, row.n)
    broken = np.zeros(row.n, dtype=bool)
    for each in others:
        broken |= unpacked(each.broken, each.n)
    known = int((broken & stood).sum())
    return known if accepted is None else max(known, round((row.robust - accepted) * row.n))


@dataclass(frozen=True)
class Comparison:
    """An evaluation by express beside AutoAttack's on the same images.

    Attributes:
        row: the evaluation by express.
        own: AutoAttack's run; None: there is none, and `robust` is an accepted result.
        robust: AutoAttack's robust accuracy.
        beyond: samples that stood express and were broken otherwise, see `broken_beyond`.
    """

    row: Evaluated
    own: Evaluated | None
    robust: float
    beyond: int | None

    @property
    def is_tuned(self) -> bool:
        """Whether the settings of the planner were chosen with this network in sight."""
        return CASES[self.row.case].tuned

    @property
    def difference(self) -> float:
        """By how much express's robust accuracy is the higher one, in whole samples."""
        return round((self.row.robust - self.robust) * self.row.n) / self.row.n

    @property
    def passes_share(self) -> float:
        """The share of AutoAttack's passes; where it was not run, of what it takes at least."""
        whole = self.own.cost if self.own else least_cost(CASES[self.row.case], self.robust)
        return self.row.cost / whole

    @property
    def time_share(self) -> float | None:
        """The share of AutoAttack's time of the processor; None where it was not run."""
        return self.row.cpu_seconds / self.own.cpu_seconds if self.own else None

    @property
    def is_inside(self) -> bool | None:
        """Whether `beyond` lies in the stated interval of what is left; None: one is unknown."""
        if self.row.left is None or self.beyond is None:
            return None
        low, high = (round(share * self.row.n) for share in self.row.left[1:])
        return low <= self.beyond <= high


def comparisons(records: Records) -> list[Comparison]:
    """Return the evaluations by express for which AutoAttack's number is known."""
    found = []
    for name, case in CASES.items():
        for row in records.of(name, "express"):
            own = records.autoattack(name, row.seed)
            robust = own.robust if own else accepted_number(case, row.n)
            if robust is not None:
                found.append(Comparison(row, own, robust, broken_beyond(records, row)))
    return found


HEADER = (
    f"{'network':<23}{'seed':>5}{'n':>6}{'clean':>8}{'AutoAttack':>12}{'express':>9}"
    f"{'difference':>12}{'passes':>9}{'share':>8}{'time':>9}{'share':>8}"
    f"{'said to be left, 95%':>24}{'broken beyond':>15}"
)
NOTES = (
    "* the planner's settings were chosen with this network in sight",
    "+ AutoAttack with another seed; a: an accepted result",
    "<: of what AutoAttack takes only for the samples that survive it, since it was not run",
    "passes: forward ones an image; time: of the processor, with what comes before the attacks",
    "broken beyond: by AutoAttack, by express with other seeds, or by every arm with another seed",
)


def table(records: Records) -> str:
    """Return the evaluations by express as text, and what they say together below."""
    found = comparisons(records)
    lines = [HEADER, *map(table_line, found)]
    lines += [*difference_lines(found), *share_lines(found), *interval_lines(found), *NOTES]
    return "\n".join(lines) + "\n"


def table_line(found: Comparison) -> str:
    """Return one line of the table."""
    row, own = found.row, found.own
    name = row.case + (" *" if found.is_tuned else "")
    mark = "" if own and own.seed == row.seed else "+" if own else "a"
    passes_share = f"{' ' if own else '<'}1/{1 / found.passes_share:.0f}"
    time_share = "-" if found.time_share is None else f"1/{1 / found.time_share:.0f}"
    said = row.escalated or "-"
    if row.left is not None:
        said = "{:.2f} ({:.2f} to {:.2f})".format(*(100 * share for share in row.left))
    beyond = "-" if found.beyond is None else f"{100 * found.beyond / row.n:.2f}"
    beyond += " outside" if found.is_inside is False else ""
    return (
        f"{name:<23}{row.seed:>5}{row.n:>6}"
        f"{100 * row.clean:>8.2f}{f'{100 * found.robust:.2f} {mark:1}':>12}"
        f"{100 * row.robust:>9.2f}{100 * found.difference:>+12.2f}{row.cost:>9.0f}"
        f"{passes_share:>8}{row.cpu_seconds:>7.0f} s{time_share:>8}{said:>24}{beyond:>15}"
    )


def difference_lines(found: Sequence[Comparison]) -> list[str]:
    """Return how far the accuracies lie apart, of all networks and of those not tuned on."""
    every = [each.difference for each in found]
    untuned = [each.difference for each in found if not each.is_tuned]
    lines = []
    if every:
        lines.append(
            f"difference: mean {100 * statistics.fmean(every):+.3f} points, largest "
            f"{100 * max(every):+.2f}; {sum(each <= 0 for each in every)} of {len(every)} at most 0"
        )
    if untuned:
        lines.append(
            f"without the networks marked *: mean {100 * statistics.fmean(untuned):+.3f}, "
            f"largest {100 * max(untuned):+.2f}"
        )
    return lines


def share_lines(found: Sequence[Comparison]) -> list[str]:
    """Return which share of AutoAttack's passes and time express takes."""
    passes = [each.passes_share for each in found]
    times = [each.time_share for each in found if each.time_share is not None]
    lines = []
    for what, shares in (("passes", passes), ("processor's time", times)):
        if shares:
            most, middle, least = (1 / f(shares) for f in (max, statistics.median, min))
            lines.append(
                f"{what}: between 1/{most:.0f} and 1/{least:.0f} of AutoAttack's, median "
                f"1/{middle:.0f}"
            )
    return lines


def interval_lines(found: Sequence[Comparison]) -> list[str]:
    """Return how often the stated intervals hold what was found beyond express."""
    inside = [each.is_inside for each in found if each.is_inside is not None]
    if not inside:
        return []
    return [
        f"broken beyond express lies in the stated interval in {sum(inside)} of {len(inside)} cases"
    ]


@click.command()
@click.option("--case", "cases", type=click.Choice(list(CASES)), multiple=True)
@click.option(
    "--protocol",
    "protocols",
    type=click.Choice(PROTOCOLS),
    multiple=True,
)
@click.option("--seed", "seeds", type=int, multiple=True, default=(0,))
@click.option("--results", type=click.Path(path_type=Path), default=RESULTS, show_default=True)
def main(
    cases: tuple[str, ...], protocols: tuple[str, ...], seeds: tuple[int, ...], results: Path
) -> None:
    """Measure, and write the table; without a protocol only that."""
    with tempfile.TemporaryDirectory() as scratch:
        for name in cases or CASES:
            for protocol in protocols:
                for seed in seeds if protocol != "thorough" else seeds[:1]:
                    if protocol == "thorough":
                        others = Records.read(results).of(name, "express", "autoattack")
                        row = thorough(name, others)
                    else:
                        row = evaluated(name, protocol, seed, Path(scratch))
                    with results.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(asdict(row)) + "\n")
                    click.echo(
                        f"{name}, {protocol}, seed {seed}: {100 * row.robust:.2f} with "
                        f"{row.cost:.0f} passes in {row.cpu_seconds:.0f} s"
                    )
    text = table(Records.read(results))
    results.with_suffix(".txt").write_text(text, encoding="utf-8")
    click.echo(text, nl=False)


if __name__ == "__main__":
    main()
