"""Blocks joined into tables: nothing is lost, and an image that came first counts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from bench.store.records import (
    UNKNOWN,
    AttackBlock,
    Attempts,
    Certificates,
    CleanResults,
    Witnesses,
)
from bench.store.tables import (
    ATTEMPT_COLUMNS,
    CERTIFICATE_COLUMNS,
    attacked_samples,
    attempt_table,
    certificates_of,
    concatenate,
    first_witnesses,
    frame,
    nullable,
)

INDICES = st.lists(st.integers(0, 20), min_size=1, max_size=12)


def witnesses(index: list[int], attack: str = "apgd-ce", prediction: int = 1) -> Witnesses:
    """Witnesses whose images tell in which place of which attack they stood."""
    n = len(index)
    return Witnesses(
        index=np.array(index, dtype=np.int64),
        attack=np.full(n, attack),
        prediction=np.full(n, prediction),
        images=np.arange(n, dtype=np.float32).reshape(n, 1, 1, 1),
    )


def clean(index: list[int], label: list[int], prediction: list[int]) -> AttackBlock:
    """A block of clean predictions."""
    arrays = (np.array(each, dtype=np.int64) for each in (index, label, prediction))
    return AttackBlock(key="00-clean-00000", seconds=0.0, clean=CleanResults(*arrays))


@given(INDICES, INDICES)
def test_each_sample_keeps_its_first_witness(first: list[int], second: list[int]) -> None:
    parts = [witnesses(first, "apgd-ce", 1), witnesses(second, "square", 2)]
    kept = first_witnesses(parts)
    assert kept is not None
    found: dict[int, tuple[str, int, float]] = {}
    for part in parts:
        for place, index in enumerate(part.index.tolist()):
            entry = str(part.attack[place]), int(part.prediction[place]), float(place)
            found.setdefault(index, entry)
    assert kept.index.tolist() == sorted(found)
    values = zip(kept.attack, kept.prediction, kept.images[:, 0, 0, 0], strict=True)
    assert list(values) == [found[index] for index in sorted(found)]
    assert first_witnesses([]) is None


@given(st.lists(INDICES, min_size=1, max_size=4))
def test_concatenating_parts_keeps_every_entry_in_order(parts: list[list[int]]) -> None:
    joined = concatenate([witnesses(each) for each in parts])
    assert joined.index.tolist() == [index for each in parts for index in each]
    assert len(joined.images) == len(joined.attack) == len(joined.index)


def test_a_sample_is_robust_if_it_is_right_and_nothing_broke_it() -> None:
    blocks = [
        clean([5, 3], [1, 1], [1, 1]),
        AttackBlock(key="01-apgd-ce-00000", seconds=0.0, witnesses=witnesses([3], prediction=7)),
        AttackBlock(key="02-square-00000", seconds=0.0, witnesses=witnesses([3], "square", 8)),
        clean([4, 2], [0, 2], [9, UNKNOWN]),
    ]
    samples = attacked_samples(blocks).set_index("index")
    assert list(samples.index) == [2, 3, 4, 5]
    assert samples["clean_correct"].to_dict() == {2: False, 3: True, 4: False, 5: True}
    assert samples["robust"].to_dict() == {2: False, 3: False, 4: False, 5: True}
    assert samples["broken_by"].dropna().to_dict() == {3: "apgd-ce"}
    assert samples["adversarial_prediction"].dropna().to_dict() == {3: 7}
    untouched = attacked_samples(blocks[:1])
    assert untouched["robust"].all()
    assert untouched["broken_by"].isna().all()
    assert untouched["adversarial_prediction"].isna().all()


def test_what_is_unknown_is_null_in_tables() -> None:
    attempts = Attempts(
        index=np.array([0, 1]),
        attack=np.array(["square", "square"]),
        outcome=np.array(["broken", "survived"]),
        iteration=np.array([4, UNKNOWN]),
        forward_passes=np.array([4.0, 100.0]),
        backward_passes=np.zeros(2),
        seconds=np.zeros(2),
    )
    table = attempt_table([attempts])
    assert list(table.columns) == ATTEMPT_COLUMNS.names
    assert table["iteration"].isna().tolist() == [False, True]
    nothing = attempt_table([])
    assert list(nothing.columns) == ATTEMPT_COLUMNS.names
    assert nothing.empty


@given(st.lists(st.tuples(*[st.integers(-1, 9)] * 2, st.floats(0, 4)), min_size=1, max_size=8))
def test_certificates_come_back_from_their_table(rows: list[tuple[Any, ...]]) -> None:
    n = len(rows)
    predictions, counts, radii = zip(*rows, strict=True)
    given_ones = Certificates(
        index=np.arange(n),
        label=np.zeros(n, dtype=np.int64),
        prediction=np.array(predictions, dtype=np.int64),
        radius=np.array(radii, dtype=np.float64),
        certified_count=np.array(counts, dtype=np.int64),
        noise_samples=np.full(n, UNKNOWN),
    )
    table = frame([given_ones])
    for name in ("certified_count", "noise_samples"):
        table[name] = nullable(table[name])
    assert table["noise_samples"].isna().all()
    came = certificates_of(table[CERTIFICATE_COLUMNS.names])
    for name, values in vars(given_ones).items():
        pd.testing.assert_series_equal(pd.Series(getattr(came, name)), pd.Series(values))
