"""The project's accepted results as tables of Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from bench.claims.accepted import AcceptedResult
from bench.claims.evidence import Evidence
from bench.data import named_dataset
from bench.formatting import percent, radius
from bench.suites import read_suite


def measured_table(evidence: Evidence) -> str:
    """Return the accepted evaluations by the fast engine, suite by suite."""
    rows = [row for row in evidence.results if row.engine == "fast"]
    cells = []
    last = ""
    for row in sorted(rows, key=lambda row: (row.suite, row.candidate)):
        suite = read_suite(row.suite)
        shown = f"`{row.suite}`, {suite.threat_model.norm} {radius(suite.threat_model.eps)}"
        cells.append(
            (
                "" if row.suite == last else shown,
                f"`{row.candidate}`",
                row.protocol,
                _images(row),
                percent(row.clean_accuracy),
                percent(row.autoattack_accuracy),
                percent(row.robust_accuracy),
            )
        )
        last = row.suite
    header = ("suite", "candidate", "protocol", "test images", "clean", "AutoAttack", "robust")
    return table(header, cells)


def certified_table(evidence: Evidence) -> str:
    """Return the accepted certifications."""
    cells = []
    for row in evidence.certifications:
        radii = row.certificates()
        at_suite = read_suite(row.suite).threat_model.eps
        n = len(radii.index)
        cells.append(
            (
                f"`{row.suite}`",
                f"`{row.candidate}`",
                f"{row.sigma:g}",
                f"{n:,}" + (f", one in {row.step}" if row.step > 1 else ""),
                f"{row.noise_samples:,}",
                f"{radii.counted.mean():.3f}",
                percent(radii.at(0.0).mean()),
                f"{percent(radii.at(at_suite).mean())} at {at_suite:g}",
            )
        )
    header = (
        "suite", "candidate", "sigma", "test images", "draws", "average certified radius",
        "right by votes", "certified",
    )  # fmt: skip
    return table(header, cells)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table of Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |".replace("|  |", "| |") for cells in lines)


def _images(row: AcceptedResult) -> str:
    suite = read_suite(row.suite)
    size = suite.n_examples or named_dataset(suite.data.label).test_size
    return f"all {row.n_examples:,}" if row.n_examples == size else f"first {row.n_examples:,}"
