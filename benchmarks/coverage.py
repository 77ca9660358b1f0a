"""How often the intervals hold the truth, by simulation over finite populations.

    python benchmarks/coverage.py

Each simulated run draws a population's samples one after the other. It counts as covered by the
anytime-valid interval only if that holds the truth after every single draw, the hardest way to
stop, and by the hypergeometric one if that holds it at the number of samples fixed in advance.
"""

from __future__ import annotations

import click
import numpy as np

from bench.statistics import anytime_interval, exact_hypergeometric_interval
from bench.statistics.sequential import log_martingale

CHUNK = 1000


@click.command()
@click.option("--runs", default=20_000, show_default=True, help="Simulated runs a row.")
@click.option("--seed", default=0, show_default=True)
def main(runs: int, seed: int) -> None:
    """Print the coverage, and how many samples an interval of 3 points takes."""
    generator = np.random.default_rng(seed)
    click.echo(f"{runs:,} simulated runs a row; nominal 95%")
    click.echo("population  accuracy  anytime, always  hypergeometric, n = N/4  n for 3 points")
    for population in (200, 1000):
        for accuracy in (0.02, 0.2, 0.42, 0.7, 0.95):
            ones = round(accuracy * population)
            always, fixed = _coverage(ones, population, runs, generator)
            click.echo(
                f"{population:>10}  {accuracy:>8.2f}  {100 * always:>14.2f}%  "
                f"{100 * fixed:>22.2f}%  {_samples_for(ones, population, 0.03):>14}"
            )
    for accuracy in (0.2, 0.42, 0.7):
        n = _samples_for(round(accuracy * 10_000), 10_000, 0.03)
        click.echo(f"{10_000:>10}  {accuracy:>8.2f}  {'-':>15}  {'-':>23}  {n:>14}")


def _coverage(
    ones: int, population: int, runs: int, generator: np.random.Generator
) -> tuple[float, float]:
    times = np.arange(1, population + 1)
    n = population // 4
    holds = np.array(
        [
            interval.low <= ones / population <= interval.high
            for interval in (exact_hypergeometric_interval(k, n, population) for k in range(n + 1))
        ]
    )
    always = fixed = 0
    for start in range(0, runs, CHUNK):
        part = np.zeros((min(CHUNK, runs - start), population))
        part[:, :ones] = 1
        seen = generator.permuted(part, axis=1).cumsum(axis=1)
        kept = log_martingale(ones, seen, times, population) < np.log(20)
        always += int(kept.all(axis=1).sum())
        fixed += int(holds[seen[:, n - 1].astype(int)].sum())
    return always / runs, fixed / runs


def _samples_for(ones: int, population: int, width: float) -> int:
    """The first n at which the anytime-valid interval around the truth is so narrow."""
    low, high = 1, population
    while low < high:
        middle = (low + high) // 2
        if anytime_interval(round(ones * middle / population), middle, population).width <= width:
            high = middle
        else:
            low = middle + 1
    return low


if __name__ == "__main__":
    main()
