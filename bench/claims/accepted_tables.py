"""The project's accepted results as tables of Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench.claims.accepted import AcceptedResult
from bench.claims.accepted_samples import AcceptedCertification, SampleOutcomes
from bench.claims.evidence import QUANTITIES, Evidence
from bench.claims.trainings import network_name
from bench.data import named_dataset
from bench.formatting import percent, radius
from bench.suites import read_suite

EXPRESS = "express"
"""The engine whose runs bound the robust accuracy from above."""


def measured_table(evidence: Evidence) -> str:
    """Return the accepted evaluations by the fast engine, suite by suite.

    A shipped candidate without one is shown by its largest express evaluation, which bounds the
    robust accuracy from above.
    """
    rows = [_measured(row) for row in evidence.results if row.engine == "fast"]
    evaluated = {(row.suite, row.candidate) for row in rows}
    express: dict[tuple[str, str], SampleOutcomes] = {}
    for each in sorted(evidence.samples, key=lambda each: (len(each.clean), each.finished)):
        place = each.suite, each.candidate
        ships = ":" not in each.candidate  # other names are mixes that users put together
        if each.engine == EXPRESS and each.step == 1 and ships and place not in evaluated:
            express[place] = each
    rows += [_bounded(each) for each in express.values()]
    cells = []
    last = ""
    for row in sorted(rows, key=lambda row: (row.suite, row.candidate)):
        suite = read_suite(row.suite)
        shown = f"`{row.suite}`, {suite.threat_model.norm} {radius(suite.threat_model.eps)}"
        cells.append(("" if row.suite == last else shown, f"`{row.candidate}`", *row.cells))
        last = row.suite
    header = ("suite", "candidate", "protocol", "test images", "clean", "AutoAttack", "robust")
    return table(header, cells)


@dataclass(frozen=True)
class _Row:
    suite: str
    candidate: str
    cells: tuple[str, ...]
    """From the protocol on."""


def _measured(row: AcceptedResult) -> _Row:
    accuracies = row.clean_accuracy, row.autoattack_accuracy, row.robust_accuracy
    cells = (row.protocol, _images(row.suite, row.n_examples), *map(percent, accuracies))
    return _Row(row.suite, row.candidate, cells)


def _bounded(row: SampleOutcomes) -> _Row:
    clean, robust = (float(row.standing(what).mean()) for what in QUANTITIES)
    images = _images(row.suite, len(row.clean))
    cells = (row.protocol, images, percent(clean), "", f"at most {percent(robust)}")
    return _Row(row.suite, row.candidate, cells)


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


def _images(name: str, n: int) -> str:
    suite = read_suite(name)
    size = suite.n_examples or named_dataset(suite.data.label).test_size
    return f"all {n:,}" if n == size else f"first {n:,}"
