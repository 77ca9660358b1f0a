"""How often an audit refutes a claim of 45% about a model that truly has 40%, and a true claim.

A recorded run gives, for each sample, the margin of its clean prediction and whether the express
attacks broke it. From these, test sets of 10,000 images are drawn that have exactly the wanted
clean and robust accuracy. On each, images are attacked in a random order, a round of 100 after the
other, and the audit's own test looks after each round:

    python benchmarks/audit_power.py --data-dir FOLDER

Rows: what the test knows. `margins`: clean predictions and margins of the whole test set, as an
audit does where it can afford one pass an image. `right`: only which clean predictions are right.
`nothing`: a plain random sample. Beside them stands the exact test of a fixed number of images at
the same level, which no test of that many images can beat if it knows nothing (Neyman and Pearson).

Images are counted that are attacked: those that are right without attack. `--cache` keeps the
recorded run. The table goes to benchmarks/results/audit_power.txt.
"""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt

import bench
from bench.auditing.claims import Claim
from bench.auditing.robust_verdict import least_count
from bench.statistics.betting import Round, capital

TABLE = Path(__file__).parent / "results" / "audit_power.txt"
SIZE = 10_000
ROUND = 100
LOOKED_AT = (100, 200, 300, 400, 500, 600, 800)
LEVEL = 0.05
CASES = {
    "cifar10-robust": ("cifar10-linf", 1000),
    "cifar100-robust": ("cifar100-linf", 1000),
    "digits-robust": ("digits-linf", 360),
}


@dataclass(frozen=True)
class Recorded:
    """A recorded run.

    Attributes:
        clean: clean accuracy of the whole test set, a fraction.
        robust, broken: margins of the samples that stood, and of those that were broken.
    """

    clean: float
    robust: npt.NDArray[np.float64]
    broken: npt.NDArray[np.float64]


def recorded(name: str, cache: Path, data_dir: Path | None) -> Recorded:
    """Return a run of the express protocol, made now or read from the cache."""
    path = cache / f"{name}.npz"
    if not path.exists():
        _record(name, path, data_dir)
    with np.load(path, allow_pickle=False) as file:
        margin, right, index, robust = (file[k] for k in ("margin", "right", "index", "robust"))
    own = right[index]
    return Recorded(
        clean=float(right.mean()),
        robust=margin[index[robust & own]].astype(np.float64),
        broken=margin[index[~robust & own]].astype(np.float64),
    )


def _record(name: str, path: Path, data_dir: Path | None) -> None:
    import torch

    from bench import data
    from bench.auditing.clean import leads_of
    from bench.candidates.registry import find_candidate
    from bench.suites import load_suite

    suite_name, n = CASES[name]
    suite = load_suite(suite_name)
    candidate = find_candidate(name, suite).load()
    dataset = data.load_source(suite.data, data_dir, suite.n_examples, candidate.preprocessing)
    parts = [
        leads_of(candidate, dataset, range(begin, min(begin + 100, len(dataset))), "cpu")
        for begin in range(0, len(dataset), 100)
    ]
    with tempfile.TemporaryDirectory() as results:
        run = bench.evaluate(
            name,
            suite_name,
            protocol="express",
            n_examples=n,
            sample="random",
            results_dir=results,
            data_dir=data_dir,
            progress=False,
        )
        samples = run.samples
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(
        path,
        margin=torch.cat([part[0] for part in parts]).numpy(),
        right=torch.cat([part[1] for part in parts]).numpy(),
        index=samples["index"].to_numpy(),
        robust=samples["robust"].to_numpy(bool),
    )


def refuted(
    run: Recorded,
    truth: int,
    clean: int,
    needed: int,
    knows: str,
    repetitions: int,
    rounds: int,
) -> npt.NDArray[np.float64]:
    """Return how often the claim is refuted by the end of each round (rounds,).

    Args:
        truth: how many of `SIZE` images are robust.
        clean: how many are right without attack.
        needed: how many would have to be robust.
        knows: `margins`, `right` or `nothing`.
    """
    generator = np.random.default_rng([truth, clean, needed, len(knows)])
    found = np.zeros(rounds)
    for _ in range(repetitions):
        scores = np.concatenate(
            [
                generator.choice(run.robust, truth),
                generator.choice(run.broken, clean - truth),
            ]
        )
        scores += 1e-9 * generator.standard_normal(len(scores))  # equal ones in random order
        ones = np.arange(clean) < truth
        if knows == "nothing":
            ones = np.concatenate([ones, np.zeros(SIZE - clean, dtype=bool)])
        size = len(ones)
        order = generator.permutation(size)[: rounds * ROUND]
        drawn = [
            Round(part, ones[part]) for part in np.split(order, range(ROUND, len(order), ROUND))
        ]
        money = capital(needed, size, drawn, scores if knows == "margins" else None, level=LEVEL)
        reached = np.maximum.accumulate(money) >= math.log(1 / LEVEL)
        found += reached[ROUND - 1 :: ROUND]
    return found / repetitions


def fixed(size: int, truth: int, needed: int, n: int) -> float:
    """Return the power of the exact test of n images, drawn from `size` without replacement."""
    from scipy.stats import hypergeom

    critical = int(hypergeom.ppf(LEVEL, size, needed, n)) - 1
    return float(hypergeom.cdf(critical, size, truth, n))


@click.command()
@click.option("--case", "cases", multiple=True, type=click.Choice(list(CASES)))
@click.option("--repetitions", default=1000, show_default=True)
@click.option("--cache", type=click.Path(path_type=Path), default=Path("build/audit_power"))
@click.option("--data-dir", type=click.Path(path_type=Path), envvar="BENCH_DATA_DIR")
def main(cases: tuple[str, ...], repetitions: int, cache: Path, data_dir: Path | None) -> None:
    """Write the table."""
    claim = Claim(name="robust", accuracy=0.45)
    needed = least_count(claim, SIZE)
    truth = round(0.40 * SIZE)
    rounds = max(LOOKED_AT) // ROUND
    looks = "".join(f"{n:>7}" for n in LOOKED_AT)
    lines = [
        f"Claim 45% (at least {needed:,} of {SIZE:,} images), truth 40%, false alarm {LEVEL:.0%}, "
        f"{repetitions:,} repetitions.",
        "Share of audits that refute the claim by so many attacked images; last column: share that",
        f"refute it although exactly {needed:,} images are robust, in {rounds} looks.",
        "",
        f"{'recorded run':<17}{'clean':>6}  {'knows':<9}{looks}{'alarm':>8}",
    ]
    for name in cases or CASES:
        run = recorded(name, cache, data_dir)
        for clean in dict.fromkeys((round(run.clean * SIZE), 6_500, 8_500)):
            if clean <= needed:
                continue
            for knows in ("margins", "right", "nothing"):
                power = refuted(run, truth, clean, needed, knows, repetitions, rounds)
                alarm = refuted(run, needed, clean, needed, knows, repetitions, rounds)[-1]
                shown = "".join(f"{power[n // ROUND - 1]:>7.3f}" for n in LOOKED_AT)
                lines.append(f"{name:<17}{clean / 100:>6.2f}  {knows:<9}{shown}{alarm:>8.3f}")
                click.echo(lines[-1])
    lines.append("")
    for title, size in (("nothing", SIZE), ("right, 65% clean", 6500), ("right, 85% clean", 8500)):
        shown = "".join(f"{fixed(size, truth, needed, n):>7.3f}" for n in LOOKED_AT)
        lines.append(f"{'fixed n, ' + title:<34}{shown}")
    TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")
    click.echo(f"wrote {TABLE}")


if __name__ == "__main__":
    main()
