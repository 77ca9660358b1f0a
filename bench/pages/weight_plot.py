"""Draw a mix's weight against the confidence margin of its robust base."""

from __future__ import annotations

import numpy as np
from markupsafe import Markup

from bench.formatting import count
from bench.pages.candidate_records import CandidateRecords
from bench.pages.svg import ROLES, WIDE, drawing

MOST_POINTS = 1000
"""Drawn of each kind, evenly spread over the samples."""


def weight_plot(records: CandidateRecords, identifier: str, width: float = WIDE) -> Markup | None:
    """Draw each image's weight against the robust base's signed margin; None: not recorded.

    Args:
        identifier: unique on the page.
        width: in inches, `WIDE` or `NARROW`.

    Returns:
        an <svg> element.
    """
    texts = []
    with drawing(width, 5.2 if width == WIDE else 4.4) as sketch:
        axes = sketch.axes
        sketch.figure.subplots_adjust(
            left=0.75 / width, right=1 - 0.25 / width, bottom=0.11, top=0.9
        )
        axes.axvline(0, color=ROLES["muted"], linewidth=0.9)
        for name, role, marker in (("clean", "clean", "o"), ("adversarial", "adversarial", "^")):
            alpha = records.column(f"alpha_{name}")
            margin = records.column(f"robust_margin_{name}")
            known = np.flatnonzero(np.isfinite(alpha) & np.isfinite(margin))
            if not len(known):
                continue
            shown = known[:: -(-len(known) // MOST_POINTS)]
            axes.plot(
                margin[shown],
                alpha[shown],
                linestyle="none",
                marker=marker,
                markersize=4.5,
                markeredgewidth=0,
                alpha=0.45,
                color=ROLES[role],
                label=f"{name} images, {count(len(shown))}"
                + (f" of {count(len(known))}" if len(shown) < len(known) else ""),
            )
            texts.append(f"{name}: median weight {np.median(alpha[known]):.3f}")
        if not texts:
            return None
        axes.set_xlim(-1.02, 1.02)
        axes.grid(visible=True)
        axes.set_axisbelow(True)
        axes.set_xlabel("Confidence margin of the robust base, negative where it is wrong")
        axes.set_ylabel("Weight α of the robust base")
        axes.legend(loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=2, fontsize=9)
        return sketch.to_svg(identifier, "Weight against margin. " + "; ".join(texts) + ".")
