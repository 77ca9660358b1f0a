"""Accuracy against passes: protocol express beside published schedules, on the same engine.

    python benchmarks/express_curve.py --case residual-small --n-examples 100
    python benchmarks/express_curve.py

A course is a schedule of `schedules.py`, or express with a goal of nothing left and a budget as
large as AutoAttack's, so that it goes on until its attacks are used up; where it ends by itself is
marked. Its random search and its ranking of classes are counted, too. A pass with a gradient counts
as three without. Courses are appended to benchmarks/results/express_curve.jsonl; the newest of each
case and schedule make the table in express_curve.txt and the drawing of the documentation.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click
from express import CASES, RANKING_COST, task_of
from matplotlib import rc_context
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from schedules import SCHEDULES, Course, Point, points_of

from bench.engines import AttackTask
from bench.engines.express import ExpressEngine

RESULTS = Path(__file__).parent / "results" / "express_curve.jsonl"
DRAWING = Path(__file__).parent.parent / "docs" / "images" / "express-curve.svg"
EXPRESS = "express"
SHARES = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Of AutoAttack's passes; the table has the accuracy at each."""
COLORS = {
    EXPRESS: "#1d5fbf",
    "AutoAttack": "#5f6c7b",
    "A3": "#b45309",
    "MALT": "#7a3e9d",
    "PMA": "#2b8a6b",
}


@dataclass(frozen=True)
class Curve:
    """How one schedule went on one case.

    Attributes:
        points: passes an image and robust accuracy, from the clean accuracy on.
        ends: the passes at which express would have ended by itself; None for others.
    """

    case: str
    schedule: str
    n: int
    seed: int
    points: list[tuple[float, float]]
    ends: float | None

    def at(self, cost: float) -> float:
        """Return the accuracy after so many passes an image."""
        return [accuracy for passes, accuracy in self.points if passes <= cost][-1]


def express_points(task: AttackTask, engine: ExpressEngine) -> list[Point]:
    """Return the points of a run of express."""
    blocks = list(engine.run(task, {}, lambda _: None))
    right = sum(
        int((block.clean.prediction == block.clean.label).sum()) for block in blocks if block.clean
    )
    points = [Point(0.0, right)]
    attacks = (block for block in blocks if block.attempts is not None)
    ranked = False
    for _, group in itertools.groupby(attacks, key=lambda each: each.key.rpartition("-")[0]):
        pull = list(group)
        if "target" in pull[0].key and not ranked:
            # The first arm that aims for a class is for all that stand.
            cost = RANKING_COST * points[-1].standing
            points.append(Point(points[-1].cost + cost, points[-1].standing))
            ranked = True
        points += points_of(pull, points[-1])
    return points


def curve(case: str, schedule: str, n_examples: int | None, seed: int) -> Curve:
    """Measure one schedule on one case."""
    chosen = replace(CASES[case], n_examples=n_examples or CASES[case].n_examples)
    task = replace(task_of(chosen), seed=seed)
    ends = None
    if schedule == EXPRESS:
        ends = express_points(task, ExpressEngine())[-1].cost / len(task.labels)
        points = express_points(task, ExpressEngine(goal=0.0, budget_share=1.0))
    else:
        course = Course(task)
        SCHEDULES[schedule](course)
        points = course.points
    n = len(task.labels)
    kept = thinned(points)
    return Curve(
        case, schedule, n, seed, [(each.cost / n, each.standing / n) for each in kept], ends
    )


def thinned(points: Sequence[Point]) -> list[Point]:
    """Return the points at which something broke, and the last."""
    changed = [now for before, now in itertools.pairwise(points) if now.standing < before.standing]
    return [points[0], *changed, points[-1]]


def table(curves: Mapping[tuple[str, str], Curve]) -> str:
    """Return the accuracies at some shares of AutoAttack's passes as text."""
    lines = []
    for case in dict.fromkeys(case for case, _ in curves):
        if (case, "AutoAttack") not in curves:
            continue
        full = curves[case, "AutoAttack"].points[-1][0]
        first = curves[case, "AutoAttack"]
        lines.append(
            f"{case}, {first.n} images, seed {first.seed}; AutoAttack takes {full:.0f} passes an "
            "image"
        )
        lines.append(f"{'':<12}" + "".join(f"{100 * share:>8g}%" for share in SHARES) + "     ends")
        for schedule in (EXPRESS, *SCHEDULES):
            if (found := curves.get((case, schedule))) is None:
                continue
            at = "".join(f"{100 * found.at(share * full):>9.2f}" for share in SHARES)
            ends = found.ends or found.points[-1][0]
            lines.append(f"{schedule:<12}{at}{100 * ends / full:>8.1f}%")
        lines.append("")
    lines.append("ends: where the schedule ends by itself; express goes on, if it is let")
    return "\n".join(lines) + "\n"


def draw(curves: Mapping[tuple[str, str], Curve], path: Path) -> None:
    """Draw accuracy against the share of AutoAttack's passes, one panel a case."""
    cases = [case for case, schedule in curves if schedule == "AutoAttack"]
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "bench", "font.size": 9.0}):
        columns = min(2, len(cases))
        lines = -(-len(cases) // columns)
        figure = Figure(figsize=(4.2 * columns, 2.9 * lines), layout="constrained")
        FigureCanvasSVG(figure)
        grid = figure.subplots(lines, columns, squeeze=False)
        for axes in grid.flat[len(cases) :]:
            axes.remove()
        for case, axes in zip(cases, grid.flat, strict=False):
            full = curves[case, "AutoAttack"].points[-1][0]
            for schedule in (*SCHEDULES, EXPRESS):
                if (found := curves.get((case, schedule))) is None:
                    continue
                shares = [100 * passes / full for passes, _ in found.points]
                heights = [100 * accuracy for _, accuracy in found.points]
                axes.step(
                    [*shares, 100],
                    [*heights, heights[-1]],
                    where="post",
                    color=COLORS[schedule],
                    label=schedule,
                    linewidth=2.2 if schedule == EXPRESS else 1.3,
                )
                if found.ends is not None:
                    axes.plot(
                        [100 * found.ends / full],
                        [100 * found.at(found.ends)],
                        "o",
                        color=COLORS[schedule],
                    )
            last = min(found.points[-1][1] for (each, _), found in curves.items() if each == case)
            axes.set(
                xscale="log",
                xlim=(0.1, 100),
                ylim=(100 * last - 1, 100 * last + 12),
                title=case,
                xlabel="passes, % of AutoAttack's",
                ylabel="robust accuracy, %",
            )
            axes.grid(alpha=0.3)
        grid.flat[0].legend(frameon=False)
        figure.savefig(path, metadata={"Date": None})


@click.command()
@click.option("--case", "cases", type=click.Choice(list(CASES)), multiple=True)
@click.option("--schedule", "schedules", type=click.Choice([EXPRESS, *SCHEDULES]), multiple=True)
@click.option("--n-examples", type=int, help="Instead of the case's own number.")
@click.option("--seed", type=int, default=0)
@click.option("--results", type=click.Path(path_type=Path), default=RESULTS)
@click.option("--drawing", type=click.Path(path_type=Path), default=DRAWING)
def main(
    cases: tuple[str, ...],
    schedules: tuple[str, ...],
    n_examples: int | None,
    seed: int,
    results: Path,
    drawing: Path,
) -> None:
    """Measure courses of the cases named, then write the table and the drawing."""
    for case in cases:
        for schedule in schedules or (EXPRESS, *SCHEDULES):
            row = curve(case, schedule, n_examples, seed)
            with results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(vars(row)) + "\n")
            click.echo(f"{case}, {schedule}: {row.points[-1]}, ends at {row.ends}")
    lines = results.read_text(encoding="utf-8").splitlines()
    curves = {
        (row.case, row.schedule): row for row in (Curve(**json.loads(each)) for each in lines)
    }
    results.with_suffix(".txt").write_text(table(curves), encoding="utf-8")
    draw(curves, drawing)
    click.echo(table(curves), nl=False)


if __name__ == "__main__":
    main()
