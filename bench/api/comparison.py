"""Two runs on the same samples: what differs, and whether by more than chance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from bench.errors import InputError
from bench.formatting import percent, points, threat_model
from bench.statistics import mcnemar_p_value
from bench.store.summary import CertifiedSummary, SweepSummary

if TYPE_CHECKING:
    from bench.api.evaluation import Evaluation


@dataclass(frozen=True, repr=False)
class Comparison:
    """Two candidates on the samples that both were evaluated on.

    Attributes:
        names: of the two candidates.
        n_examples: shared samples.
        robust_accuracies: of the two on these samples, in [0, 1].
        only_first, only_second: samples on which one stands and the other does not.
        p_value: of McNemar's exact test, two-sided: how likely differences as uneven would be if
            both were as likely to stand where they differ.
        differing: those samples, one row each, by `index`: `label`, `first` and `second`, which say
            whether each stands.
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
        return (
            f"<Comparison on {self.n_examples} samples: {self.names[0]} {first}%, {self.names[1]} "
            f"{second}%, difference {points(self.difference)} points; {self.only_first} stand only "
            f"in the first, {self.only_second} only in the second, McNemar p = {self.p_value:.3g}>"
        )


def compare(first: Evaluation, second: Evaluation) -> Comparison:
    """Compare two runs on the samples of both, by McNemar's exact test.

    Raises:
        InputError: another data set or threat model, no shared sample, or a sweep.
    """
    one, two = first.summary.manifest, second.summary.manifest
    if one.dataset.name != two.dataset.name or one.dataset.size != two.dataset.size:
        raise InputError(
            f"expected two runs on one data set, got {one.dataset.name} and {two.dataset.name}"
        )
    if one.threat_model != two.threat_model:
        raise InputError(
            f"expected two runs under one threat model, got {threat_model(one.threat_model)} and "
            f"{threat_model(two.threat_model)}"
        )
    joined = _standing(first).join(_standing(second).add_suffix("_second"), how="inner")
    if joined.empty:
        raise InputError("expected two runs with samples in common, got none")
    if not (joined["label"] == joined["label_second"]).all():
        raise InputError(
            f"expected two runs on the same samples, got other labels in {one.dataset.name}"
        )
    table = pd.DataFrame(
        {
            "label": joined["label"],
            "first": joined["standing"],
            "second": joined["standing_second"],
        }
    )
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


def _standing(evaluation: Evaluation) -> pd.DataFrame:
    """Return label and whether a sample stands, by its index."""
    if isinstance(evaluation.summary, SweepSummary):
        raise InputError(
            "a sweep cannot be compared, since each sample has a result at each weight; evaluate "
            "its mixes"
        )
    samples = evaluation.samples.set_index("index")
    if isinstance(evaluation.summary, CertifiedSummary):
        eps = evaluation.summary.manifest.threat_model.eps
        standing = (samples["prediction"] == samples["label"]) & (samples["radius"] >= eps)
    else:
        standing = samples["robust"].astype(bool)
    return pd.DataFrame({"label": samples["label"], "standing": standing})
