"""The project's records that claims are tested on: accepted runs, their samples, published logs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from importlib import resources
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bench.claims.accepted import AcceptedResult, load_accepted
from bench.claims.accepted_samples import (
    AcceptedCertification,
    RadiiOfSamples,
    SampleOutcomes,
    load_accepted_certifications,
    load_sample_outcomes,
)
from bench.claims.papers import Network
from bench.errors import InputError
from bench.suites.suite import ADAPTIVE_PROTOCOL, STANDARD_PROTOCOL

LOGS = "certify_logs"
QUANTITIES: tuple[Literal["clean", "robust"], ...] = ("clean", "robust")
REFERENCE = "reference"
"""The engine whose runs count only where a test asks for them."""

Draws = tuple[int, str]
"""How a certification draws noise: how often at most, and by which procedure."""
AS_PUBLISHED: Draws = (0, "published")


@dataclass(frozen=True)
class Standing:
    """What several runs say of the samples that all of them have.

    Attributes:
        index: (n,) places in the data set.
        clean: (runs, n) whether the sample is right without an attack.
        robust: (runs, n) whether it stood every attack.
    """

    index: NDArray[np.int64]
    clean: NDArray[np.bool_]
    robust: NDArray[np.bool_]


@dataclass(frozen=True)
class Evidence:
    """All records.

    Attributes:
        results: accepted evaluations.
        samples: what became of their samples.
        certifications: accepted certifications.
        logs: the folder of published certification logs.
    """

    results: Sequence[AcceptedResult]
    samples: Sequence[SampleOutcomes]
    certifications: Sequence[AcceptedCertification]
    logs: Path

    def samples_of(self, suite: str, network: Network) -> SampleOutcomes | None:
        """Return the samples of a network's evaluation, of the largest one, then the newest.

        Without a protocol the adaptive one counts before the standard one, and no other counts.
        """
        return max(
            (
                row
                for row in self.samples
                if row.suite == suite
                and row.candidate == network.candidate
                and (row.engine == REFERENCE) == network.reference
                and _rank(row.protocol, network) > 0
            ),
            key=lambda row: (_rank(row.protocol, network), len(row.clean), row.finished),
            default=None,
        )

    def standing(self, suite: str, networks: Sequence[Network]) -> Standing:
        """Return what the networks' evaluations say of their common samples.

        Raises:
            InputError: one of them has no record of its samples, or none is common to all.
        """
        runs = []
        for network in networks:
            run = self.samples_of(suite, network)
            if run is None:
                raise InputError(f"expected a record of the samples of {network.name}, got none")
            runs.append(run)
        index = reduce(np.intersect1d, [run.index for run in runs])
        if not len(index):
            raise InputError("expected records of the same samples, got none in common")
        rows = [np.isin(run.index, index) for run in runs]
        clean, robust = (
            np.stack([run.standing(what)[row] for run, row in zip(runs, rows, strict=True)])
            for what in QUANTITIES
        )
        return Standing(index, clean, robust)

    def result(self, suite: str, network: Network) -> AcceptedResult | None:
        """Return the accuracies of a network's accepted run, chosen as `samples_of` does."""
        return max(
            (
                row
                for row in self.results
                if row.suite == suite
                and row.candidate == network.candidate
                and (row.engine == REFERENCE) == network.reference
                and _rank(row.protocol, network) > 0
            ),
            key=lambda row: (_rank(row.protocol, network), row.n_examples, row.finished),
            default=None,
        )

    def radii(self, suite: str, network: Network) -> dict[Draws, RadiiOfSamples]:
        """Return a network's certificates by how noise was drawn: a log's, or the newest of each.

        Certificates of other draws are of other radii, and cannot be compared.
        """
        if network.log:
            return {AS_PUBLISHED: self.log(network.log)}
        rows = [
            row
            for row in self.certifications
            if row.suite == suite and row.candidate == network.candidate
        ]
        newest_last = sorted(rows, key=lambda row: row.finished)
        return {(row.noise_samples, row.procedure): row.certificates() for row in newest_last}

    def log(self, name: str) -> RadiiOfSamples:
        """Return the certificates of a published log, named without its ending."""
        return read_log(self.logs / f"{name}.tsv.gz")


def _rank(protocol: str, network: Network) -> int:
    """Return how much a protocol counts for a network; 0: not at all."""
    if network.protocol:
        return int(protocol == network.protocol)
    return {STANDARD_PROTOCOL: 1, ADAPTIVE_PROTOCOL: 2}.get(protocol, 0)


def load_evidence() -> Evidence:
    """Return the records that ship with the package.

    Raises:
        InputError: a wrong row (file and row are named).
    """
    return Evidence(
        load_accepted(),
        load_sample_outcomes(),
        load_accepted_certifications(),
        Path(str(resources.files("bench.claims") / LOGS)),
    )


def common(
    first: NDArray[np.int64], second: NDArray[np.int64]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return where the samples stand that both have, in the order of the data set.

    Args:
        first: (n,) places in the data set.
        second: (m,) the same.

    Raises:
        InputError: there is none.
    """
    shared, of_first, of_second = np.intersect1d(first, second, return_indices=True)
    if not len(shared):
        raise InputError("expected records of the same samples, got none in common")
    return of_first, of_second


def on_common_samples(certified: Sequence[RadiiOfSamples]) -> list[RadiiOfSamples]:
    """Return certificates of several networks for the samples that all have, in ascending order.

    Raises:
        InputError: there is none.
    """
    shared = reduce(np.intersect1d, [each.index for each in certified])
    return [each.some(common(each.index, shared)[0]) for each in certified]


def read_log(path: Path) -> RadiiOfSamples:
    """Return the radii of a published log of `certify_logs`.

    Raises:
        InputError: it cannot be read, or lacks a column.
    """
    from pandas import read_csv  # slow to import

    try:
        table = read_csv(path, sep="\t", usecols=["idx", "radius", "correct"]).sort_values("idx")
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: expected a certification log, got: {error}") from error
    nowhere = np.zeros(len(table), dtype=np.bool_)
    return RadiiOfSamples(
        index=table["idx"].to_numpy(np.int64),
        radius=np.where(table["correct"] == 1, table["radius"], -1.0),
        asked=nowhere,
        contradicted=nowhere,
    )
