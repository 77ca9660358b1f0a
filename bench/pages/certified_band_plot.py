"""Draw what is known about one candidate between what is proven and what attacks broke."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes

from bench.formatting import percent, radius
from bench.pages.certified import GRID_STEP, CertifiedEntry
from bench.pages.certified_plot import COLORS
from bench.pages.svg import ROLES, Drawing, drawing
from bench.store.records import FloatArray
from bench.store.summary import AttackedSummary

MOST = 4


def certified_band_plot(
    entries: Sequence[CertifiedEntry],
    attacked: AttackedSummary | None,
    eps: float,
    identifier: str,
    base: CertifiedEntry | None = None,
) -> Markup:
    """Draw certified accuracy against radius, and the upper bound that an attack proves.

    Up to the attacked radius the clean accuracy bounds the accuracy from above, beyond it the
    accuracy under attack. The band between lies between the best certificate and that bound.

    Args:
        entries: at least one certification of the candidate.
        attacked: a run that attacked it; None: there is no upper bound.
        eps: radius of the suite's threat model.
        identifier: unique on the page.
        base: a certification of the robust base alone, if the candidate is a mix.

    Returns:
        an <svg> element.
    """
    shown = entries[:MOST]
    drawn = [*shown, *([] if base is None else [base])]
    farthest = max([float(each.radii[-1]) for each in drawn if len(each.radii)] + [eps])
    grid = np.arange(0.0, 1.08 * farthest + 2 * GRID_STEP, GRID_STEP)
    with drawing(12.6, 4.8) as sketch:
        axes = sketch.axes
        sketch.figure.subplots_adjust(left=0.055, right=0.98, bottom=0.12, top=0.88)
        axes.grid(visible=True)
        axes.set_axisbelow(True)
        if attacked is not None:
            _draw_bound(axes, grid, shown, attacked)
        for place, entry in enumerate(shown):
            _draw_certificates(sketch, grid, entry, COLORS[place])
        if base is not None:
            _draw_base(axes, grid, base)
        axes.axvline(eps, color=ROLES["muted"], linewidth=0.9, linestyle=(0, (2, 3)))
        axes.set_xlim(0, float(grid[-1]))
        axes.set_ylim(0, 101)
        axes.set_xlabel("L2 radius, in the [0, 1] pixel scale")
        axes.set_ylabel("Accuracy (%)")
        axes.legend(
            loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=4, fontsize=9, columnspacing=1.6
        )
        return sketch.to_svg(identifier, _describe(shown, attacked, eps, base))


def _draw_bound(
    axes: Axes, grid: FloatArray, entries: Sequence[CertifiedEntry], attacked: AttackedSummary
) -> None:
    """Draw the upper bound, and fill what lies between it and the best certificate."""
    at = attacked.manifest.threat_model.eps
    bound = np.where(grid < at, 100 * attacked.clean_accuracy, 100 * attacked.robust_accuracy)
    best = np.max([100 * each.curve(grid) for each in entries], axis=0)
    axes.fill_between(
        grid,
        np.minimum(best, bound),
        bound,
        step="post",
        color=ROLES["adversarial"],
        alpha=0.10,
        linewidth=0,
        label="not known: neither proven nor broken",
    )
    axes.step(
        grid,
        bound,
        where="post",
        color=ROLES["adversarial"],
        linewidth=1.6,
        label=f"at most, by attacks at {radius(at)}",
    )


def _draw_certificates(
    sketch: Drawing, grid: FloatArray, entry: CertifiedEntry, color: str
) -> None:
    """Draw what one certification proves."""
    certified = entry.summary.certified
    (line,) = sketch.axes.step(
        grid,
        100 * entry.curve(grid),
        where="post",
        color=ROLES[color],
        linewidth=1.8,
        label=f"certified, σ {certified.sigma:g}, n {entry.summary.n_examples:,}",
    )
    sketch.set_title(line, f"ACR {certified.average_certified_radius:.3f}")


def _draw_base(axes: Axes, grid: FloatArray, base: CertifiedEntry) -> None:
    """Draw what the robust base alone is certified for."""
    axes.step(
        grid,
        100 * base.curve(grid),
        where="post",
        color=ROLES["muted"],
        linewidth=1.6,
        linestyle=(0, (5, 2)),
        label=f"{base.manifest.candidate} alone, certified",
    )


def _describe(
    entries: Sequence[CertifiedEntry],
    attacked: AttackedSummary | None,
    eps: float,
    base: CertifiedEntry | None,
) -> str:
    """Return the text alternative of the drawing."""

    def certified(name: str, entry: CertifiedEntry) -> str:
        return f"{name}: {percent(entry.accuracy_at(eps))}% certified at {radius(eps)}"

    texts = [certified(f"sigma {each.summary.certified.sigma:g}", each) for each in entries]
    if attacked is not None:
        at = radius(attacked.manifest.threat_model.eps)
        texts.append(f"attacked at {at}: {percent(attacked.robust_accuracy)}%")
    if base is not None:
        texts.append(certified(f"{base.manifest.candidate} alone", base))
    return "Accuracy against radius. " + "; ".join(texts) + "."
