"""A run's records as tables: their columns, and how blocks are joined to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import pandas as pd
import pyarrow as pa

from bench.records import Block, Certificates, Witnesses

MIX_COLUMNS = (
    "alpha_clean",
    "alpha_adversarial",
    "accurate_margin_clean",
    "robust_margin_clean",
    "accurate_margin_adversarial",
    "robust_margin_adversarial",
)
"""Of the samples of a mix, see `bench.mix_records`; null for other candidates."""

_OUTCOME_COLUMNS = (
    ("index", pa.int64()),
    ("label", pa.int64()),
    ("clean_prediction", pa.int64()),
    ("clean_correct", pa.bool_()),
    ("robust", pa.bool_()),
    ("broken_by", pa.string()),
    ("adversarial_prediction", pa.int64()),
)
"""What attacks made of a sample."""

SAMPLE_SCHEMA = pa.schema([*_OUTCOME_COLUMNS, *((name, pa.float64()) for name in MIX_COLUMNS)])
SWEEP_SCHEMA = pa.schema([("alpha", pa.float64()), *_OUTCOME_COLUMNS, ("witness", pa.int64())])
CERTIFICATE_SCHEMA = pa.schema(
    [
        ("index", pa.int64()),
        ("label", pa.int64()),
        ("prediction", pa.int64()),
        ("radius", pa.float64()),
        ("certified_count", pa.int64()),
        ("noise_samples", pa.int64()),
    ]
)
ATTEMPT_SCHEMA = pa.schema(
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
SWEEP_ATTEMPT_SCHEMA = ATTEMPT_SCHEMA.insert(0, pa.field("alpha", pa.float64()))


@dataclass(frozen=True)
class Tables:
    """A run's records, joined from its blocks.

    Attributes:
        samples: columns of `SAMPLE_SCHEMA`, or of `CERTIFICATE_SCHEMA` where samples were
            certified; sorted by index. Of a sweep, columns of `SWEEP_SCHEMA`, by weight and index.
        attempts: columns of `ATTEMPT_SCHEMA`, of a sweep `SWEEP_ATTEMPT_SCHEMA`, in the order of
            the blocks.
        witnesses: sorted by index; of a sweep, which may have several of a sample, in the order in
            which they were found.
    """

    samples: pd.DataFrame
    attempts: pd.DataFrame
    witnesses: Witnesses | None

    def certificates(self) -> Certificates:
        """The samples of a certification or an imported log."""
        columns = self.samples.fillna(-1)
        return Certificates(
            **{
                name: columns[name].to_numpy(np.float64 if name == "radius" else np.int64)
                for name in CERTIFICATE_SCHEMA.names
            }
        )


def schemas(tables: Tables) -> tuple[pa.Schema, pa.Schema]:
    """The columns of the samples and of the attempts."""
    if "radius" in tables.samples:
        return CERTIFICATE_SCHEMA, ATTEMPT_SCHEMA
    if "alpha" in tables.samples:
        return SWEEP_SCHEMA, SWEEP_ATTEMPT_SCHEMA
    return SAMPLE_SCHEMA, ATTEMPT_SCHEMA


def join_blocks(blocks: Sequence[Block]) -> Tables:
    """The tables that a run's blocks make together; a sample's first witness counts."""
    certificates = [block.certificates for block in blocks if block.certificates is not None]
    if certificates:
        return certificate_tables(certificates)
    if any(block.sweep is not None for block in blocks):
        return sweep_tables(blocks)
    clean = [block.clean for block in blocks if block.clean is not None]
    samples = pd.concat([pd.DataFrame(vars(part)) for part in clean], ignore_index=True)
    samples = samples.rename(columns={"prediction": "clean_prediction"})
    samples = samples.sort_values("index", ignore_index=True)
    samples["clean_correct"] = samples["clean_prediction"] == samples["label"]
    attempts = pd.concat(
        [
            pd.DataFrame(columns=ATTEMPT_SCHEMA.names),
            *(pd.DataFrame(vars(block.attempts)) for block in blocks if block.attempts is not None),
        ],
        ignore_index=True,
    )
    witnesses = _join_witnesses(
        [block.witnesses for block in blocks if block.witnesses is not None]
    )
    broken_by: dict[int, str] = {}
    adversarial: dict[int, int] = {}
    if witnesses is not None:
        index = witnesses.index.tolist()
        broken_by = dict(zip(index, witnesses.attack.tolist(), strict=True))
        adversarial = dict(zip(index, witnesses.prediction.tolist(), strict=True))
    samples["broken_by"] = samples["index"].map(broken_by.get)
    samples["adversarial_prediction"] = samples["index"].map(adversarial.get).astype("Int64")
    samples["robust"] = samples["clean_correct"] & samples["broken_by"].isna()
    known = attempts["iteration"].astype("Int64")
    attempts["iteration"] = known.where(known >= 0)
    return Tables(
        samples.reindex(columns=SAMPLE_SCHEMA.names), attempts[ATTEMPT_SCHEMA.names], witnesses
    )


def certificate_tables(parts: Sequence[Certificates]) -> Tables:
    """The tables of a certification: certificates, no attempts, no witnesses."""
    samples = pd.concat([pd.DataFrame(vars(part)) for part in parts], ignore_index=True)
    samples = samples.sort_values("index", ignore_index=True)
    for name in ("certified_count", "noise_samples"):
        known = samples[name].astype("Int64")
        samples[name] = known.where(known >= 0)
    attempts = pd.DataFrame(columns=ATTEMPT_SCHEMA.names)
    return Tables(samples[CERTIFICATE_SCHEMA.names], attempts, None)


def sweep_tables(blocks: Sequence[Block]) -> Tables:
    """The tables of a sweep: the last block's results at all weights, and every witness."""
    results = [block.sweep for block in blocks if block.sweep is not None]
    samples = pd.DataFrame(vars(results[-1]))
    attempts = [pd.DataFrame(columns=SWEEP_ATTEMPT_SCHEMA.names)]
    found: list[Witnesses] = []
    places: dict[tuple[float, int], int] = {}
    for block in blocks:
        if block.attempts is not None and block.sweep is not None:
            part = pd.DataFrame(vars(block.attempts))
            attempts.append(part.assign(alpha=block.sweep.alpha[0]))
        if block.witnesses is not None and block.sweep is not None:
            alpha = float(block.sweep.alpha[0])
            for index in block.witnesses.index.tolist():
                places[alpha, index] = len(places)
            found.append(block.witnesses)
    keys = zip(samples["found_at"].tolist(), samples["index"].tolist(), strict=True)
    samples["witness"] = pd.array([places.get(key) for key in keys], dtype="Int64")
    samples["clean_correct"] = samples["clean_prediction"] == samples["label"]
    samples["robust"] = samples["clean_correct"] & (samples["broken_by"] == "")
    samples["broken_by"] = samples["broken_by"].where(samples["broken_by"] != "", None)
    predicted = samples["adversarial_prediction"].astype("Int64")
    samples["adversarial_prediction"] = predicted.where(samples["broken_by"].notna())
    joined = pd.concat(attempts, ignore_index=True)
    known = joined["iteration"].astype("Int64")
    joined["iteration"] = known.where(known >= 0)
    return Tables(
        samples[SWEEP_SCHEMA.names],
        joined[SWEEP_ATTEMPT_SCHEMA.names],
        _concatenate_witnesses(found) if found else None,
    )


def _concatenate_witnesses(parts: Sequence[Witnesses]) -> Witnesses:
    names = [field.name for field in fields(Witnesses)]
    return Witnesses(
        **{name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    )


def _join_witnesses(parts: Sequence[Witnesses]) -> Witnesses | None:
    if not parts:
        return None
    index = np.concatenate([part.index for part in parts])
    _, first = np.unique(index, return_index=True)
    return Witnesses(
        index=index[first],
        attack=np.concatenate([part.attack for part in parts])[first],
        prediction=np.concatenate([part.prediction for part in parts])[first],
        images=np.concatenate([part.images for part in parts])[first],
    )
