"""Draw what is known about one candidate between what is proven and what attacks broke."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from bench.formatting import percent, radius
from bench.pages.certified import GRID_STEP, CertifiedEntry
from bench.pages.certified_plot import COLORS
from bench.pages.svg import ROLES, drawing
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
    curves = [100 * each.curve(grid) for each in shown]
    texts = [
        f"sigma {each.summary.certified.sigma:g}: {percent(each.accuracy_at(eps))}% certified at "
        f"{radius(eps)}"
        for each in shown
    ]
    with drawing(12.6, 4.8) as sketch:
        axes = sketch.axes
        sketch.figure.subplots_adjust(left=0.055, right=0.98, bottom=0.12, top=0.88)
        axes.grid(visible=True)
        axes.set_axisbelow(True)
        if attacked is not None:
            at = attacked.manifest.threat_model.eps
            bound = np.where(
                grid < at, 100 * attacked.clean_accuracy, 100 * attacked.robust_accuracy
            )
            best = np.max(curves, axis=0)
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
            texts.append(f"attacked at {radius(at)}: {percent(attacked.robust_accuracy)}%")
        for place, (entry, curve) in enumerate(zip(shown, curves, strict=True)):
            (line,) = axes.step(
                grid,
                curve,
                where="post",
                color=ROLES[COLORS[place]],
                linewidth=1.8,
                label=f"certified, σ {entry.summary.certified.sigma:g}, n "
                f"{entry.summary.n_examples:,}",
            )
            sketch.set_title(line, f"ACR {entry.summary.certified.average_certified_radius:.3f}")
        if base is not None:
            axes.step(
                grid,
                100 * base.curve(grid),
                where="post",
                color=ROLES["muted"],
                linewidth=1.6,
                linestyle=(0, (5, 2)),
                label=f"{base.manifest.candidate} alone, certified",
            )
            texts.append(
                f"{base.manifest.candidate} alone: {percent(base.accuracy_at(eps))}% certified at "
                f"{radius(eps)}"
            )
        axes.axvline(eps, color=ROLES["muted"], linewidth=0.9, linestyle=(0, (2, 3)))
        axes.set_xlim(0, float(grid[-1]))
        axes.set_ylim(0, 101)
        axes.set_xlabel("L2 radius, in the [0, 1] pixel scale")
        axes.set_ylabel("Accuracy (%)")
        axes.legend(
            loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=4, fontsize=9, columnspacing=1.6
        )
        return sketch.to_svg(identifier, "Accuracy against radius. " + "; ".join(texts) + ".")
