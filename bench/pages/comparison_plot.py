"""Draw compared runs over each other: what survives after attack passes, or at certified radii."""

from __future__ import annotations

import numpy as np
from markupsafe import Markup

from bench.formatting import count, percent
from bench.pages.comparison import RunComparison, passes_until_broken
from bench.pages.svg import ROLES, Drawing, drawing, printable
from bench.store.records import FloatArray
from bench.store.summary import CertifiedSummary

COLORS = ("measured", "attack-1", "adaptive", "clean", "attack-2", "muted", "attack-5", "attack-7")
STYLES: tuple[object, ...] = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))
MARKS = 9
"""Points of a curve that say their values."""


def comparison_plot(comparison: RunComparison, identifier: str) -> Markup | None:
    """Draw one curve a run, on the shared samples; None if the runs have no common axis.

    Runs that attacked are drawn against the passes that a sample cost until it broke,
    certifications against the radius.

    Args:
        identifier: unique on the page.

    Returns:
        an <svg> element.
    """
    certified = [isinstance(run, CertifiedSummary) for run in comparison.runs]
    if all(certified):
        return _radius_plot(comparison, identifier)
    return None if any(certified) else _passes_plot(comparison, identifier)


def _passes_plot(comparison: RunComparison, identifier: str) -> Markup:
    found = [passes_until_broken(comparison, place) for place in range(len(comparison.runs))]
    farthest = max(10.0, *(most for _, most in found))
    grid = np.unique(np.concatenate([*(passes for passes, _ in found), [1.0, farthest]]))
    grid = grid[grid >= 1]
    with drawing(12.6, 5.2) as sketch:
        axes = sketch.axes
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, position: count(value))
        axes.set_xlim(1, farthest * 1.05)
        axes.set_xlabel("Passes of attacks on an image (a gradient counts as one)")
        axes.set_ylabel("Images that survive (%)")
        for place, (passes, most) in enumerate(found):
            own = np.append(grid[grid < most], max(most, 1.0))
            fallen = np.searchsorted(passes, own, side="right")
            _draw(sketch, comparison, place, own, 1 - fallen / comparison.n, "passes")
        return _finish(sketch, comparison, identifier, "images that survive against attack passes")


def _radius_plot(comparison: RunComparison, identifier: str) -> Markup:
    radii = [
        np.sort(table.loc[table["prediction"] == table["label"], "radius"].to_numpy(np.float64))
        for table in comparison.samples
    ]
    farthest = max((float(own[-1]) for own in radii if len(own)), default=0.0)
    eps = comparison.runs[0].manifest.threat_model.eps
    grid = np.linspace(0.0, max(farthest, 1.05 * eps), 200)
    with drawing(12.6, 5.2) as sketch:
        axes = sketch.axes
        axes.set_xlim(0, float(grid[-1]))
        axes.set_xlabel("L2 radius, in the [0, 1] pixel scale")
        axes.set_ylabel("Certified accuracy (%)")
        axes.axvline(eps, color=ROLES["muted"], linewidth=0.8, linestyle=(0, (2, 3)))
        for place, own in enumerate(radii):
            beyond = len(own) - np.searchsorted(own, grid, side="left")
            _draw(sketch, comparison, place, grid, beyond / comparison.n, "radius")
        return _finish(sketch, comparison, identifier, "certified accuracy against radius")


def _draw(
    sketch: Drawing,
    comparison: RunComparison,
    place: int,
    x: FloatArray,
    shares: FloatArray,
    axis: str,
) -> None:
    name = comparison.names[place]
    color = ROLES[COLORS[place % len(COLORS)]]
    sketch.axes.plot(
        x,
        100 * shares,
        drawstyle="steps-post" if axis == "passes" else "default",
        color=color,
        linestyle=STYLES[place % len(STYLES)],
        linewidth=1.6,
        label=printable(name, 48),
    )
    first, last = float(x[0]), float(x[-1])
    wanted = np.geomspace(first, last, MARKS) if axis == "passes" else np.linspace(0, last, MARKS)
    at = np.searchsorted(x, wanted, side="right") - 1
    for position in np.unique(np.clip(at, 0, len(x) - 1)):
        value, share = float(x[position]), float(shares[position])
        (mark,) = sketch.axes.plot(
            [value], [100 * share], marker="o", markersize=4.5, color=color, linestyle="none"
        )
        where = f"after {count(value)} passes" if axis == "passes" else f"at radius {value:.3f}"
        sketch.set_title(mark, f"{name}: {percent(share)}% {where}")


def _finish(sketch: Drawing, comparison: RunComparison, identifier: str, what: str) -> Markup:
    axes = sketch.axes
    sketch.figure.subplots_adjust(left=0.052, right=0.98, bottom=0.1, top=0.9)
    axes.grid(visible=True)
    axes.set_axisbelow(True)
    axes.set_ylim(-1, 101)
    axes.legend(loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=3, fontsize=9)
    names = ", ".join(comparison.names)
    return sketch.to_svg(identifier, f"Curves of {what}: {names}. The table has the numbers.")
