"""The project's accepted results as tables of Markdown."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bench.claims.accepted import AcceptedResult
from bench.claims.accepted_samples import AcceptedCertification
from bench.claims.evidence import Evidence
from bench.claims.trainings import network_name
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
    """Return the accepted certifications; several trainings of a network share a row."""
    rows: dict[tuple[str, str, float, int, int, int], list[AcceptedCertification]] = {}
    for row in evidence.certifications:
        place = row.suite, network_name(row.candidate), row.sigma, row.step, row.noise_samples
        rows.setdefault((*place, len(row.radii.split())), []).append(row)
    cells = []
    for (suite, name, sigma, step, draws, n), trainings in rows.items():
        at_suite = read_suite(suite).threat_model.eps
        radii = [row.certificates() for row in trainings]
        several = len(trainings) > 1
        cells.append(
            (
                f"`{suite}`",
                f"`{name}`, {len(trainings)} trainings" if several else f"`{name}`",
                f"{sigma:g}",
                f"{n:,}" + (f", one in {step}" if step > 1 else ""),
                f"{draws:,}",
                _over_trainings([each.counted.mean() for each in radii]),
                percent(_mean([each.at(0.0).mean() for each in radii])),
                f"{percent(_mean([each.at(at_suite).mean() for each in radii]))} at {at_suite:g}",
            )
        )
    header = (
        "suite", "candidate", "sigma", "test images", "draws", "average certified radius",
        "right by votes", "certified",
    )  # fmt: skip
    return table(header, cells)


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def _over_trainings(radii: Sequence[float]) -> str:
    """Return the mean of trainings' average radii, with their standard deviation."""
    mean = f"{_mean(radii):.3f}"
    return f"{mean} ± {np.std(radii, ddof=1):.3f}" if len(radii) > 1 else mean


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table of Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |".replace("|  |", "| |") for cells in lines)


def _images(row: AcceptedResult) -> str:
    suite = read_suite(row.suite)
    size = suite.n_examples or named_dataset(suite.data.label).test_size
    return f"all {row.n_examples:,}" if row.n_examples == size else f"first {row.n_examples:,}"
