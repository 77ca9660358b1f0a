"""A suite's leaderboard as a table for a paper: LaTeX, Markdown, CSV.

Accuracies are percent with two decimals, as on RobustBench and in the field's papers.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from bench.errors import InputError
from bench.formatting import percent, short_name
from bench.pages.leaderboard import Leaderboard

COLUMNS = ("Rank", "Model", "Architecture", "Clean", "AutoAttack", "Best known", "Extra data")
LATEX_SPECIAL = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
}


@dataclass(frozen=True)
class Row:
    """A ranked candidate; accuracies are fractions, None where they were not measured."""

    rank: int
    model: str
    architecture: str
    clean: float
    autoattack: float | None
    best_known: float
    additional_data: bool

    @property
    def cells(self) -> tuple[str, ...]:
        """As printed, in the order of `COLUMNS`."""
        return (
            str(self.rank),
            self.model,
            self.architecture,
            percent(self.clean),
            percent(self.autoattack),
            percent(self.best_known),
            "yes" if self.additional_data else "no",
        )


def leaderboard_rows(board: Leaderboard) -> list[Row]:
    """Return the ranked candidates, sorted by best-known robust accuracy as on RobustBench.

    Raises:
        InputError: no run of the suite is ranked.
    """
    entries = [
        (
            entry.best_known.robust_accuracy if entry.best_known else entry.summary.robust_accuracy,
            entry,
        )
        for entry in board.ranked
    ]
    if not entries:
        raise InputError(
            f"suite {board.suite}: expected at least one run of the suite as defined, got "
            f"variants only; `bench run --suite {board.suite}` makes one"
        )
    entries.sort(key=lambda pair: (-pair[0], -pair[1].summary.clean_accuracy))
    return [
        Row(
            rank=1 + sum(other > robust for other, _ in entries),
            model=entry.manifest.candidate,
            architecture=short_name(entry.manifest.information.get("architecture"))
            or str(entry.manifest.information.get("architecture") or "–"),
            clean=entry.summary.clean_accuracy,
            autoattack=entry.summary.autoattack_accuracy,
            best_known=robust,
            additional_data=entry.additional_data,
        )
        for robust, entry in entries
    ]


def latex(rows: Sequence[Row], caption: str) -> str:
    """Return a LaTeX table that needs the package booktabs; the best accuracies are bold."""
    best = [max(value or 0 for value in values) for values in _accuracies(rows)]
    lines = [
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{_latex(caption)}}}",
        r"  \begin{tabular}{rllrrrl}",
        r"    \toprule",
        "    " + " & ".join(COLUMNS) + r" \\",
        r"    \midrule",
    ]
    for row in rows:
        cells = [_latex(cell) for cell in row.cells]
        for place, value, most in zip(
            (3, 4, 5), (row.clean, row.autoattack, row.best_known), best, strict=True
        ):
            if value == most:
                cells[place] = rf"\textbf{{{cells[place]}}}"
        lines.append("    " + " & ".join(cells) + r" \\")
    lines += [r"    \bottomrule", r"  \end{tabular}", r"\end{table}"]
    return "\n".join(lines) + "\n"


def markdown(rows: Sequence[Row], caption: str) -> str:
    """Return a Markdown table."""
    alignment = ["--:", "---", "---", "--:", "--:", "--:", "---"]
    lines = [caption, "", _markdown_row(COLUMNS), _markdown_row(alignment)]
    lines += [_markdown_row([_markdown(cell) for cell in row.cells]) for row in rows]
    return "\n".join(lines) + "\n"


def comma_separated(rows: Sequence[Row], caption: str) -> str:
    """Return a CSV file, without the caption, which has no place in one."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(row.cells for row in rows)
    return buffer.getvalue()


TABLES: Mapping[str, Callable[[Sequence[Row], str], str]] = MappingProxyType(
    {"latex": latex, "markdown": markdown, "csv": comma_separated}
)


def _accuracies(rows: Sequence[Row]) -> tuple[list[float | None], ...]:
    return (
        [row.clean for row in rows],
        [row.autoattack for row in rows],
        [row.best_known for row in rows],
    )


def _latex(text: str) -> str:
    return "".join(LATEX_SPECIAL.get(letter, letter) for letter in text).replace("–", "--")


def _markdown(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
