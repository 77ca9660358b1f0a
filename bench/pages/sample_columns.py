"""A run's samples as columns, for the raw numbers of a page."""

from __future__ import annotations

from typing import Any

from bench.pages.candidate_records import CandidateRecords
from bench.store.tables import CONFIDENCE_COLUMNS, MIX_COLUMNS

DIGITS = 4


def sample_columns(records: CandidateRecords) -> dict[str, list[Any]]:
    """Return one list a column, a sample a place; columns without any value are left out."""
    samples = records.samples
    columns: dict[str, list[Any]] = {
        "index": samples["index"].tolist(),
        "label": records.labels.tolist(),
        "clean_prediction": records.clean_prediction.tolist(),
        "robust": records.robust.astype(int).tolist(),
        "broken_by": [name if isinstance(name, str) else None for name in samples["broken_by"]],
        "step": [records.steps.get(index) for index in samples["index"].tolist()],
        "passes": [round(value) for value in records.passes.tolist()],
        "adversarial_prediction": [
            value if broken else None
            for value, broken in zip(
                records.prediction.tolist(), records.broken.tolist(), strict=True
            )
        ],
    }
    for name in (*CONFIDENCE_COLUMNS, *MIX_COLUMNS):
        values = records.column(name)
        columns[name] = [
            None if value != value else round(value, DIGITS) for value in values.tolist()
        ]
    return {name: values for name, values in columns.items() if any(v is not None for v in values)}
