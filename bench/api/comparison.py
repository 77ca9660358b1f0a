"""Two runs on the same samples: what differs, and whether by more than chance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from bench.formatting import percent, points
from bench.pages.comparison import standing_samples, standing_together
from bench.statistics import mcnemar_p_value

if TYPE_CHECKING:
    from bench.api.evaluation import Evaluation


@dataclass(frozen=True, repr=False)
class Comparison:
    """Two candidates on the samples that both were evaluated on.

    Attributes:
        names: of the two candidates.
        n_examples: shared samples.
        robust_accuracies: of the two on these samples, in [0, 1].
        only_first, only_second: samples that survive in one and not in the other.
        p_value: of McNemar's exact test, two-sided: how likely differences as uneven would be if
            both were as likely to survive where they differ.
        differing: those samples, one row each, by `index`: `label`, `first` and `second`, which say
            whether each survives.
    """

    names: tuple[str, str]
    n_examples: int
    robust_accuracies: tuple[float, float]
    only_first: int
    only_second: int
    p_value: float
    differing: pd.DataFrame

    @property
    def difference(self) -> float:
        """The first's robust accuracy minus the second's, a fraction."""
        return self.robust_accuracies[0] - self.robust_accuracies[1]

    def __repr__(self) -> str:
        first, second = (percent(each) for each in self.robust_accuracies)
        p_value = f"{self.p_value:.3g}"
        return (
            f"<Comparison on {self.n_examples} samples: {self.names[0]} {first}%, {self.names[1]} "
            f"{second}%, difference {points(self.difference)} points; {self.only_first} survive "
            f"only in the first, {self.only_second} only in the second, McNemar p = {p_value}>"
        )


def compare(first: Evaluation, second: Evaluation) -> Comparison:
    """Compare two runs on the samples of both, by McNemar's exact test.

    Raises:
        InputError: another data set or threat model, no shared sample, or a sweep.
    """
    runs = (first, second)
    standing = standing_together(
        [run.summary.manifest for run in runs],
        [standing_samples(run.summary, run.samples) for run in runs],
    )
    table = standing.rename(columns={0: "first", 1: "second"})
    lost, gained = table["first"] & ~table["second"], table["second"] & ~table["first"]
    return Comparison(
        names=(first.name, second.name),
        n_examples=len(table),
        robust_accuracies=(float(table["first"].mean()), float(table["second"].mean())),
        only_first=int(lost.sum()),
        only_second=int(gained.sum()),
        p_value=mcnemar_p_value(int(lost.sum()), int(gained.sum())),
        differing=table[lost | gained],
    )
