"""Two runs on the same samples: what differs, and whether by more than chance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from bench.formatting import percent, points
from bench.pages.comparison import (
    clean_accuracy,
    comparison_notices,
    protocol_text,
    standing_samples,
    standing_together,
)
from bench.statistics import mcnemar_p_value

if TYPE_CHECKING:
    from bench.api.evaluation import Evaluation


@dataclass(frozen=True, repr=False)
class Comparison:
    """Two candidates on the samples that both were evaluated on.

    Attributes:
        names: of the two candidates.
        protocols: of the two runs, such as `standard` and `express`.
        n_examples: shared samples.
        clean_accuracies: of the two on these samples, in [0, 1].
        robust_accuracies: of the two on these samples, in [0, 1].
        only_first, only_second: samples that survive in one and not in the other.
        p_value: of McNemar's exact test, two-sided: how likely differences as uneven would be if
            both were as likely to survive where they differ.
        differing: those samples, one row each, by `index`: `label`, `first` and `second`, which say
            whether each survives.
        notices: what to know of the comparison, such as that different attacks made the runs.
    """

    names: tuple[str, str]
    protocols: tuple[str, str]
    n_examples: int
    clean_accuracies: tuple[float, float]
    robust_accuracies: tuple[float, float]
    only_first: int
    only_second: int
    p_value: float
    differing: pd.DataFrame
    notices: tuple[str, ...] = ()

    @property
    def difference(self) -> float:
        """The first's robust accuracy minus the second's, a fraction."""
        return self.robust_accuracies[0] - self.robust_accuracies[1]

    def __repr__(self) -> str:
        first, second = (
            f"{name} ({protocol}) {percent(robust)}%"
            for name, protocol, robust in zip(
                self.names, self.protocols, self.robust_accuracies, strict=True
            )
        )
        told = "".join(f". {notice}" for notice in self.notices).removesuffix(".")
        return (
            f"<Comparison on {self.n_examples} samples: {first}, {second}, difference "
            f"{points(self.difference)} points; {self.only_first} survive only in the first, "
            f"{self.only_second} only in the second, McNemar p = {self.p_value:.3g}{told}>"
        )


def compare(first: Evaluation, second: Evaluation) -> Comparison:
    """Compare two runs on the samples of both, by McNemar's exact test.

    Raises:
        InputError: another data set or threat model, no shared sample, or a sweep.
    """
    runs = (first, second)
    manifests = [run.summary.manifest for run in runs]
    tables = [run.samples for run in runs]
    standing = standing_together(
        manifests,
        [standing_samples(run.summary, table) for run, table in zip(runs, tables, strict=True)],
    )
    clean = [
        clean_accuracy(run.summary, table[table["index"].isin(standing.index)])
        for run, table in zip(runs, tables, strict=True)
    ]
    shared = standing.rename(columns={0: "first", 1: "second"})
    lost, gained = shared["first"] & ~shared["second"], shared["second"] & ~shared["first"]
    return Comparison(
        names=(first.name, second.name),
        protocols=(protocol_text(manifests[0]), protocol_text(manifests[1])),
        n_examples=len(shared),
        clean_accuracies=(clean[0], clean[1]),
        robust_accuracies=(float(shared["first"].mean()), float(shared["second"].mean())),
        only_first=int(lost.sum()),
        only_second=int(gained.sum()),
        p_value=mcnemar_p_value(int(lost.sum()), int(gained.sum())),
        differing=shared[lost | gained],
        notices=comparison_notices(manifests),
    )
