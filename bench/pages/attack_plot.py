"""Draw what each attack broke: one bar for each candidate, from robust to misclassified samples."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from bench.formatting import count, percent
from bench.pages.leaderboard import Entry
from bench.pages.svg import ROLES, WIDE, drawing, printable

ATTACK_COLORS = 12
LEGEND_COLUMNS = 6
MOST_BARS = 30


def attack_plot(entries: Sequence[Entry], identifier: str, width: float = WIDE) -> Markup:
    """Draw the shares of samples that are robust, broken by each attack, and wrong without attack.

    From right to left, a bar shows the attacks in their order; its leftmost part is the robust
    accuracy.

    Args:
        entries: at least one entry, in the order of the rows; at most `MOST_BARS` are drawn.
        identifier: unique on the page.
        width: in inches, `WIDE` or `NARROW`; where it is narrow, names stand above their bars.

    Returns:
        an <svg> element.
    """
    shown = entries[:MOST_BARS]
    done = [each for entry in shown for each in entry.summary.attacks]
    fell = {each.name for each in done if each.broken}
    attacks = [name for name in dict.fromkeys(each.name for each in done) if name in fell]
    legend = [("robust", "robust")]
    legend += [(name, _role(place)) for place, name in enumerate(attacks)][::-1]
    legend += [("wrong without attack", "wrong")]
    is_wide = width == WIDE
    columns = LEGEND_COLUMNS if is_wide else 3
    top = 0.15 + 0.22 * math.ceil(len(legend) / columns)
    height = (0.42 if is_wide else 0.56) * len(shown) + 0.55 + top
    with drawing(width, height) as sketch:
        axes = sketch.axes
        sketch.figure.subplots_adjust(
            left=3.15 / width if is_wide else 0.19 / width,
            right=1 - 0.19 / width,
            bottom=0.55 / height,
            top=1 - top / height,
        )
        thickness = 0.68 if is_wide else 0.5
        for row, entry in enumerate(shown):
            left = 0.0
            for part, share, role in _parts(entry, attacks):
                (bar,) = axes.barh(row, 100 * share, thickness, left=left, color=ROLES[role])
                sketch.set_title(bar, f"{entry.manifest.candidate}: {part} {percent(share)}%")
                if role == "robust" and share > (0.07 if is_wide else 0.12):
                    axes.text(
                        left + 50 * share,
                        row,
                        percent(share),
                        ha="center",
                        va="center_baseline",
                        fontsize=9,
                        color=ROLES["on-robust"],
                    )
                left += 100 * share
        _draw_names(axes, shown, thickness if not is_wide else None)
        axes.set_xlim(0, 100)
        axes.set_xlabel("Samples (%)")
        axes.spines["left"].set_visible(False)
        axes.legend(
            handles=[Patch(color=ROLES[role], label=label) for label, role in legend],
            loc="lower left",
            bbox_to_anchor=(-0.01, 1.0),
            ncols=min(len(legend), columns),
            fontsize=9,
            handlelength=1.0,
            handleheight=1.0,
            handletextpad=0.5,
            columnspacing=1.3,
        )
        return sketch.to_svg(identifier, _describe(entries, len(shown)))


def _draw_names(axes: Axes, entries: Sequence[Entry], thickness: float | None) -> None:
    """Write each candidate's name beside its bar, or above it.

    Args:
        thickness: of the bars that names stand above; None: they stand beside them.
    """
    last = len(entries) - 0.5
    if thickness is None:
        axes.set_yticks(range(len(entries)), labels=[_name(entry) for entry in entries])
        axes.tick_params(axis="y", length=0, labelcolor=ROLES["ink"])
        axes.set_ylim(last, -0.5)
        return
    axes.set_yticks([])
    axes.set_ylim(last - 0.2, -0.7)
    for row, entry in enumerate(entries):
        axes.text(0, row - thickness / 2 - 0.06, _name(entry), ha="left", va="bottom")


def _name(entry: Entry) -> str:
    if not entry.summary.is_variant:
        return printable(entry.manifest.candidate, 38)
    images = f" ({count(entry.summary.n_examples)} images)"
    return printable(entry.manifest.candidate, 38 - len(images)) + images


def _parts(entry: Entry, attacks: Sequence[str]) -> list[tuple[str, float, str]]:
    """Return (what, share of the samples, color) from left to right; the shares sum to 1."""
    summary = entry.summary
    parts = [("robust", summary.robust_accuracy, "robust")]
    for done in reversed(summary.attacks):
        if done.broken:
            role = _role(attacks.index(done.name))
            parts.append((f"broken by {done.name}", done.broken / summary.n_examples, role))
    parts.append(("wrong without attack", 1 - summary.clean_accuracy, "wrong"))
    return parts


def _role(place: int) -> str:
    return f"attack-{place % ATTACK_COLORS + 1}"


def _describe(entries: Sequence[Entry], shown: int) -> str:
    what = f"the first {shown} of {len(entries)}" if shown < len(entries) else f"{shown}"
    return (
        f"Stacked bars for {what} candidates: the share of samples that is robust, that each "
        "attack broke, and that is wrong without attack. The numbers are in the leaderboard."
    )
