"""Draw accuracy class by class, and the confusions under attack."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup
from matplotlib.patches import Rectangle

from bench.formatting import count, percent
from bench.pages.per_class import MOST_IN_MATRIX, ClassAccuracy
from bench.pages.svg import NARROW, ROLES, drawing, printable
from bench.store.records import IntArray

SHOWN_AT_EACH_END = 12
WIDTH = NARROW


def class_plot(rows: Sequence[ClassAccuracy], identifier: str, least_height: float = 0.0) -> Markup:
    """Draw clean and robust accuracy of each class, the least robust at the top.

    Args:
        rows: at least one; of more than can be read, both ends are drawn.
        identifier: unique on the page.
        least_height: in inches, to stand beside another figure.

    Returns:
        an <svg> element.
    """
    ends = rows
    if len(rows) > MOST_IN_MATRIX + 4:
        ends = [*rows[:SHOWN_AT_EACH_END], *rows[-SHOWN_AT_EACH_END:]]
    gap = SHOWN_AT_EACH_END if len(ends) < len(rows) else len(rows)
    places = [place + (place >= gap) for place in range(len(ends))]
    height = max(0.28 * (places[-1] + 1) + 0.95, least_height)
    longest = max(len(printable(row.name, 18)) + len(count(row.n)) for row in ends)
    with drawing(WIDTH, height) as sketch:
        axes = sketch.axes
        sketch.figure.subplots_adjust(
            left=(0.4 + 0.085 * longest) / WIDTH,
            right=0.97,
            bottom=0.5 / height,
            top=1 - 0.36 / height,
        )
        for place, row in zip(places, ends, strict=True):
            ends_of_line = [100 * row.robust, 100 * row.clean]
            axes.plot(ends_of_line, [place, place], color=ROLES["wrong"], linewidth=3, zorder=1)
            for value, role, name in (
                (row.clean, "clean", "clean"),
                (row.robust, "robust", "robust"),
            ):
                (dot,) = axes.plot(
                    [100 * value],
                    [place],
                    marker="o",
                    markersize=6.5,
                    linestyle="none",
                    color=ROLES[role],
                    label=f"{name} accuracy" if place == 0 else None,
                    zorder=2,
                    clip_on=False,
                )
                sketch.set_title(dot, f"{row.name}: {name} {percent(value)}%, n = {row.n}")
        labels = [f"{printable(row.name, 18)} ({count(row.n)})" for row in ends]
        if gap < len(ends):
            hidden = len(rows) - len(ends)
            axes.text(50, gap, f"{count(hidden)} classes between", ha="center", va="center",
                      fontsize=8.5, color=ROLES["muted"])  # fmt: skip
        axes.set_yticks(places, labels=labels)
        axes.tick_params(axis="y", length=0, labelcolor=ROLES["ink"])
        axes.set_ylim(places[-1] + 0.6, -0.6)
        axes.set_xlim(0, 100)
        axes.grid(visible=True, axis="x")
        axes.set_axisbelow(True)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("Accuracy (%)")
        axes.legend(
            loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=2, fontsize=9, handletextpad=0.2
        )
        worst, best = rows[0], rows[-1]
        text = (
            f"Clean and robust accuracy of {len(rows)} classes. Least robust: {worst.name} "
            f"{percent(worst.robust)}%; most robust: {best.name} {percent(best.robust)}%."
        )
        return sketch.to_svg(identifier, text)


def confusion_plot(matrix: IntArray, names: Sequence[str], identifier: str) -> Markup:
    """Draw a confusion matrix: a row a true class, shaded by the share of its samples.

    Args:
        matrix: (K, K + 1) counts; the last column holds samples without an answer.
        names: of the K classes.
        identifier: unique on the page.

    Returns:
        an <svg> element.
    """
    if not matrix[:, -1].any():
        matrix = matrix[:, :-1]
    columns = [*names, "no answer"][: matrix.shape[1]]
    rows = len(names)
    height = matrix_height(names)
    top = _label_room(names) * 0.64 + 0.42
    with drawing(WIDTH, height) as sketch:
        axes = sketch.axes
        sketch.figure.subplots_adjust(
            left=(_label_room(names) + 0.4) / WIDTH,
            right=0.96,
            bottom=0.02,
            top=1 - top / height,
        )
        for row in range(rows):
            total = max(int(matrix[row].sum()), 1)
            for column, number in enumerate(matrix[row].tolist()):
                if not number:
                    continue
                share = number / total
                role = "robust" if row == column else "adversarial"
                cell = Rectangle(
                    (column - 0.5, row - 0.5), 1, 1, color=ROLES[role], alpha=0.08 + 0.72 * share
                )
                cell.set_linewidth(0)
                axes.add_patch(cell)
                sketch.set_title(
                    cell, f"{names[row]} taken for {columns[column]}: {number} of {total}"
                )
                axes.text(column, row, count(number), ha="center", va="center_baseline",
                          fontsize=8.5 if rows <= 12 else 6.5)  # fmt: skip
        axes.set_xlim(-0.5, len(columns) - 0.5)
        axes.set_ylim(rows - 0.5, -0.5)
        axes.xaxis.tick_top()
        axes.xaxis.set_label_position("top")
        axes.set_xticks(range(len(columns)), labels=[printable(name, 14) for name in columns],
                        rotation=40, ha="left", rotation_mode="anchor")  # fmt: skip
        axes.set_yticks(range(rows), labels=[printable(name, 14) for name in names])
        axes.tick_params(length=0, labelcolor=ROLES["ink"], labelsize=9 if rows <= 12 else 7.5)
        for spine in axes.spines.values():
            spine.set_visible(False)
        axes.set_xlabel("Class under attack", labelpad=6)
        axes.set_ylabel("True class")
        text = f"Confusion matrix under attack of {rows} classes; the largest entries are listed."
        return sketch.to_svg(identifier, text)


def matrix_height(names: Sequence[str]) -> float:
    """Return the height of a confusion matrix of these classes, in inches."""
    room = _label_room(names)
    return (0.96 * WIDTH - room - 0.4) * 0.86 + room * 0.64 + 0.42


def _label_room(names: Sequence[str]) -> float:
    return 0.12 + 0.082 * max(len(printable(name, 14)) for name in [*names, ""])
