"""A run's records as tables: what all kinds of runs share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa

from bench.store.kinds import Columns
from bench.store.records import (
    FAILED,
    UNKNOWN,
    AttackBlock,
    Attempts,
    Certificates,
    Smallest,
    Witnesses,
)

Records = TypeVar("Records")

ATTEMPT_COLUMNS = pa.schema(
    [
        ("index", pa.int64()),
        ("attack", pa.string()),
        ("outcome", pa.string()),
        ("iteration", pa.int64()),
        ("forward_passes", pa.float64()),
        ("backward_passes", pa.float64()),
        ("seconds", pa.float64()),
    ]
)
MIX_COLUMNS = (
    "alpha_clean",
    "alpha_adversarial",
    "accurate_margin_clean",
    "robust_margin_clean",
    "accurate_margin_adversarial",
    "robust_margin_adversarial",
)
"""Columns of a mix's samples, see `bench.runs.mix_records`; null for other candidates."""

CONFIDENCE_COLUMNS = (
    "clean_confidence",
    "clean_label_probability",
    "adversarial_confidence",
    "adversarial_label_probability",
)
"""A candidate's confidence, see `bench.runs.confidence_records`. Runs of earlier releases lack
these columns."""

OUTCOME_COLUMNS = (
    ("index", pa.int64()),
    ("label", pa.int64()),
    ("clean_prediction", pa.int64()),
    ("clean_correct", pa.bool_()),
    ("robust", pa.bool_()),
    ("broken_by", pa.string()),
    ("adversarial_prediction", pa.int64()),
)
"""What attacks made of a sample."""

CERTIFICATE_COLUMNS = pa.schema(
    [
        ("index", pa.int64()),
        ("label", pa.int64()),
        ("prediction", pa.int64()),
        ("radius", pa.float64()),
        ("certified_count", pa.int64()),
        ("noise_samples", pa.int64()),
    ]
)


SMALLEST_COLUMNS = pa.schema(
    [
        ("index", pa.int64()),
        ("radius", pa.float64()),
        ("attack", pa.string()),
        ("forward_passes", pa.float64()),
        ("backward_passes", pa.float64()),
        ("seconds", pa.float64()),
    ]
)
"""Each sample's smallest known perturbation. `radius` is 0 where the sample is wrong without an
attack, and infinite where none is known; `attack` is null in both cases."""


@dataclass(frozen=True)
class Tables:
    """A run's records, joined from its blocks.

    Attributes:
        samples: one row for each sample, by index, unless the kind of run says otherwise.
        attempts: one row for each attack on a sample, in the order of the blocks.
        witnesses: None if there are none.
        columns: the columns of both tables.
        smallest: one row for each sample, by index, with `SMALLEST_COLUMNS`; None: not looked for.
        smallest_images: the images of those perturbations; None if there are none.
    """

    samples: pd.DataFrame
    attempts: pd.DataFrame
    witnesses: Witnesses | None
    columns: Columns
    smallest: pd.DataFrame | None = None
    smallest_images: Witnesses | None = None


def frame(parts: Iterable[object], columns: pa.Schema | None = None) -> pd.DataFrame:
    """Return records of one type as one table; without records, an empty table with `columns`."""
    tables = [pd.DataFrame(vars(part)) for part in parts]
    if not tables:
        return pd.DataFrame(columns=columns.names if columns is not None else [])
    return pd.concat(tables, ignore_index=True)


def attempt_table(parts: Iterable[Attempts]) -> pd.DataFrame:
    """Return the attempts of blocks as one table."""
    table = frame(parts, ATTEMPT_COLUMNS)
    table["iteration"] = nullable(table["iteration"])
    return table


def nullable(numbers: pd.Series[Any]) -> pd.Series[Any]:
    """Return whole numbers with null where they are `UNKNOWN`."""
    known = numbers.astype("Int64")
    return known.where(known >= 0)


def concatenate(parts: Sequence[Records]) -> Records:
    """Return records of arrays as one; there is at least one part."""
    names = [field.name for field in fields(parts[0])]  # type: ignore[arg-type]
    joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    return type(parts[0])(**joined)


def first_witnesses(parts: Sequence[Witnesses]) -> Witnesses | None:
    """Return the first witness of each sample, by index; None if there is none."""
    if not parts:
        return None
    everything = concatenate(parts)
    _, first = np.unique(everything.index, return_index=True)
    return Witnesses(**{name: values[first] for name, values in vars(everything).items()})


def attacked_samples(blocks: Sequence[AttackBlock]) -> pd.DataFrame:
    """Return what attacks made of each sample, by index.

    The columns are `index`, `label`, `clean_prediction`, `clean_correct`, `robust`, `broken_by` and
    `adversarial_prediction`. The last two are null where nothing broke the sample. A sample's first
    witness counts. A sample on which an attack failed is not robust: nothing is known of it.
    """
    samples = frame(block.clean for block in blocks if block.clean is not None)
    samples = samples.rename(columns={"prediction": "clean_prediction"})
    samples = samples.sort_values("index", ignore_index=True)
    samples["clean_correct"] = samples["clean_prediction"] == samples["label"]
    witnesses = first_witnesses([b.witnesses for b in blocks if b.witnesses is not None])
    broken_by: dict[int, str] = {}
    adversarial: dict[int, int] = {}
    if witnesses is not None:
        index = witnesses.index.tolist()
        broken_by = dict(zip(index, witnesses.attack.tolist(), strict=True))
        adversarial = dict(zip(index, witnesses.prediction.tolist(), strict=True))
    samples["broken_by"] = samples["index"].map(broken_by.get)
    samples["adversarial_prediction"] = samples["index"].map(adversarial.get).astype("Int64")
    attempts = [block.attempts for block in blocks if block.attempts is not None]
    failed = [each.index[each.outcome == FAILED] for each in attempts]
    stood = samples["broken_by"].isna() & ~samples["index"].isin(np.concatenate([[], *failed]))
    samples["robust"] = samples["clean_correct"] & stood
    return samples


def smallest_records(
    blocks: Sequence[AttackBlock],
) -> tuple[pd.DataFrame | None, Witnesses | None]:
    """Return the smallest known perturbations of a run's samples, and their images.

    Returns:
        a table with `SMALLEST_COLUMNS`, by index, None if no block of the search is there; the
        images by index, None if there are none.
    """
    searched = [block.smallest for block in blocks if block.smallest is not None]
    clean = [block.clean for block in blocks if block.clean is not None]
    wrong = [part.index[part.prediction != part.label] for part in clean]
    if not searched:
        return None, None
    none = np.zeros(sum(map(len, wrong)))
    unsearched = Smallest(
        index=np.concatenate([np.zeros(0, np.int64), *wrong]),
        radius=none,
        attack=np.full(len(none), ""),
        forward_passes=none,
        backward_passes=none,
        seconds=none,
    )
    table = frame([*searched, unsearched])
    table["attack"] = table["attack"].where(table["attack"] != "", None)
    table = table.sort_values("index", ignore_index=True)
    images = [block.smallest_images for block in blocks if block.smallest_images is not None]
    return table, first_witnesses(images)


def certificates_of(samples: pd.DataFrame) -> Certificates:
    """Return a table with `CERTIFICATE_COLUMNS` as records."""
    columns = samples.fillna(UNKNOWN)
    return Certificates(
        **{
            name: columns[name].to_numpy(np.float64 if name == "radius" else np.int64)
            for name in CERTIFICATE_COLUMNS.names
        }
    )
