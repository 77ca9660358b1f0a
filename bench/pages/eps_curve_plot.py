"""Robust accuracy against eps, one curve a candidate, from smallest known perturbations."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes

from bench.errors import InputError
from bench.formatting import percent
from bench.pages.svg import ROLES, WIDE, drawing, printable
from bench.store import RunFolder, Store
from bench.store.eps_curve import accuracy_at, curve, falling_radii_of
from bench.store.records import FloatArray
from bench.store.summary import Summary

COLORS = ("measured", "attack-2", "attack-5", "attack-7", "attack-1", "flagged", "attack-9")
STYLES: tuple[object, ...] = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))
MOST_CURVES = len(COLORS) * len(STYLES)
MOST_WIDTH = 8.4
"""Of the drawing, in inches."""
ROOM = 1.05
"""The axis ends so much beyond the last step, and at least so much beyond eps."""


@dataclass(frozen=True)
class NamedCurve:
    """A candidate's curve.

    Attributes:
        name: of the candidate.
        smallest: (n,) the radii at which its samples fall, see `bench.store.eps_curve`.
    """

    name: str
    smallest: FloatArray


def curve_of(folder: RunFolder, summary: Summary) -> NamedCurve | None:
    """Return a run's curve; None if the run did not look for smallest perturbations.

    Raises:
        InputError: the file is damaged.
    """
    radii = falling_radii_of(folder, summary.manifest.threat_model.eps)
    return None if radii is None else NamedCurve(summary.manifest.candidate, radii)


def curves_of(store: Store, summaries: Iterable[Summary]) -> list[NamedCurve]:
    """Return the curves of those runs that looked for smallest perturbations; damaged ones not."""
    found = []
    for summary in summaries:
        with contextlib.suppress(InputError):
            named = curve_of(store.folder(summary.manifest), summary)
            found += [] if named is None else [named]
    return found


def draw_eps_curves(axes: Axes, curves: Sequence[NamedCurve], eps: float, norm: str) -> None:
    """Draw curves with their pointwise 95% intervals, and mark the threat model's radius.

    Args:
        axes: where to draw.
        curves: at least one; those beyond `MOST_CURVES` are left out.
        eps: the threat model's radius.
        norm: its norm.
    """
    shown = curves[:MOST_CURVES]
    ends = [each.smallest[np.isfinite(each.smallest)].max(initial=eps) for each in shown]
    end = ROOM * float(max(ends))
    for place, each in enumerate(shown):
        steps = curve(each.smallest)
        radii = np.append(steps.radii, end)
        accuracy, low, high = (
            100 * np.append(values, values[-1])
            for values in (steps.accuracy, steps.low, steps.high)
        )
        color = ROLES[COLORS[place % len(COLORS)]]
        axes.fill_between(radii, low, high, step="post", color=color, alpha=0.15, linewidth=0)
        axes.step(
            radii,
            accuracy,
            where="post",
            color=color,
            linestyle=STYLES[place // len(COLORS) % len(STYLES)],
            linewidth=1.6,
            label=printable(each.name, 48),
        )
        (at_eps,) = 100 * accuracy_at(each.smallest, [eps])
        axes.plot([eps], [at_eps], marker="o", markersize=5, color=color, linestyle="none")
    axes.axvline(eps, color=ROLES["muted"], linewidth=0.8, linestyle=(0, (2, 3)))
    axes.set_xlim(0, end)
    axes.set_ylim(0, 101)
    axes.set_xlabel(f"{norm} radius, in the [0, 1] pixel scale")
    axes.set_ylabel("Robust accuracy, upper bound (%)")
    axes.legend(loc="upper right", fontsize=9)


def eps_curve_plot(
    curves: Sequence[NamedCurve], eps: float, norm: str, identifier: str, width: float = WIDE
) -> Markup | None:
    """Return the drawing as an <svg> element; None without curves. Arguments: `draw_eps_curves`.

    Args:
        identifier: unique on the page.
        width: in inches, `WIDE` or `NARROW`.
    """
    if not curves:
        return None
    texts = [
        f"{each.name} {percent(float(accuracy_at(each.smallest, [0.0])[0]))} without attack, "
        f"{percent(float(accuracy_at(each.smallest, [eps])[0]))} at {eps:.4g}"
        for each in curves[:MOST_CURVES]
    ]
    width = min(width, MOST_WIDTH)
    with drawing(width, 4.6) as sketch:
        sketch.figure.subplots_adjust(
            left=0.67 / width, right=1 - 0.17 / width, bottom=0.11, top=0.97
        )
        sketch.axes.grid(visible=True)
        sketch.axes.set_axisbelow(True)
        draw_eps_curves(sketch.axes, curves, eps, norm)
        text = f"Robust accuracy in percent against the {norm} radius: {'; '.join(texts)}."
        return sketch.to_svg(identifier, text)
