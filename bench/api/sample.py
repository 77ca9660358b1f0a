"""One sample of a run: what it is, what broke it, and the image that did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from bench.attacks.distances import norms
from bench.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from bench.api.evaluation import Evaluation
    from bench.attacks.distances import Norm


@dataclass(frozen=True)
class Sample:
    """A sample, as a run left it.

    Attributes:
        index: its place in the data set.
        label: its class.
        clean: (C, H, W) in [0, 1].
        adversarial: (C, H, W) in [0, 1]; None: no attack broke it.
        distance: of the two, in the norm of the threat model; None: no attack broke it.
        facts: what the run's table says of it, by column: classes, confidences, what broke it.
        attempts: the attacks that were made on it, one row each, in their order.
    """

    index: int
    label: int
    clean: Tensor
    adversarial: Tensor | None
    distance: float | None
    facts: dict[str, Any]
    attempts: pd.DataFrame

    def __repr__(self) -> str:
        if self.distance is not None:
            came = self.facts.get("adversarial_prediction")
            end = f"broken by {self.facts['broken_by']}: class {came} at distance {self.distance:g}"
        elif not self.facts.get("clean_correct", True):
            end = f"wrong without an attack: class {self.facts.get('clean_prediction')}"
        else:
            end = "no attack broke it"
        return f"<Sample {self.index}, class {self.label}, {end}>"


def sample_of(evaluation: Evaluation, index: int) -> Sample:
    """Return one sample of a run; see `Evaluation.sample`.

    Raises:
        InputError: the run has no such sample, or its data are not here.
    """
    table = evaluation.samples
    rows = table[table["index"] == index]
    if len(rows) != 1:
        raise InputError(
            f"expected one of the run's {table['index'].nunique():,} samples, by its place in the "
            f"data set, in a run with one row for each; got {index!r}"
        )
    facts = {name: None if pd.isna(value) else value for name, value in rows.iloc[0].items()}
    dataset = evaluation.dataset()
    place = int((dataset.indices == index).nonzero()[0])
    clean = dataset.images[place]
    images, places = evaluation.adversarial_images()
    found = (places == index).nonzero().flatten()
    adversarial = images[int(found[0])] if len(found) else None
    norm: Norm = evaluation.summary.manifest.threat_model.norm
    attempts = evaluation.attempts
    return Sample(
        index=index,
        label=int(dataset.labels[place]),
        clean=clean,
        adversarial=adversarial,
        distance=None if adversarial is None else _distance(adversarial, clean, norm),
        facts={str(name): value for name, value in facts.items() if value is not None},
        attempts=attempts[attempts["index"] == index].reset_index(drop=True),
    )


def _distance(adversarial: Tensor, clean: Tensor, norm: Norm) -> float:
    return float(norms((adversarial.double() - clean.double()).flatten()[None], norm)[0])
