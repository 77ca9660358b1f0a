"""What workers send back is read without pickle, whatever it is."""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from bench.errors import EvaluationError
from bench.executors.parcels import pack_blocks, unpack_blocks
from bench.store.packing import block_arrays
from tests.executors.digits import digits_task, run


class _Runs:
    """Leaves a mark when it is unpickled."""

    def __reduce__(self) -> Any:
        return _mark, ()


MARKS: list[str] = []


def _mark() -> str:
    MARKS.append("unpickled")
    return "unpickled"


def _archive(arrays: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def _array_file(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


OBJECTS = np.array([_Runs()], dtype=object)
HEAD = np.array('{"blocks": [["AttackBlock", "it"]], "facts": {}}')


@given(st.binary(max_size=200))
def test_bytes_that_are_no_archive_are_refused(data: bytes) -> None:
    with pytest.raises(EvaluationError, match="expected an archive of blocks"):
        unpack_blocks(data)


@given(st.data())
def test_a_damaged_archive_is_refused_or_read(data: st.DataObject) -> None:
    whole = bytearray(_archive({"head": np.array('{"blocks": [], "facts": {"cost": 1.0}}')}))
    place = data.draw(st.integers(0, len(whole) - 1))
    whole[place] = data.draw(st.integers(0, 255))
    try:
        blocks, _ = unpack_blocks(bytes(whole))
    except EvaluationError:
        return
    assert blocks == []


@pytest.mark.parametrize(
    "data",
    [
        pickle.dumps(_Runs()),
        _array_file(OBJECTS),
        _archive({"head": OBJECTS}),
        _archive({"head": HEAD, "0.record": np.array("{}"), "0.seconds": OBJECTS}),
        _archive({"head": HEAD, "0.record": np.array("{}"), "0.clean.index": OBJECTS}),
        _archive({"head": np.array('{"blocks": [["Popen", "it"]], "facts": {}}')}),
        _archive({"head": np.array('{"blocks": 3}')}),
    ],
    ids=["pickle", "array", "head", "number", "column", "unknown-kind", "no-list"],
)
def test_objects_are_refused_and_not_made(data: bytes) -> None:
    MARKS.clear()
    with pytest.raises(EvaluationError, match="expected an archive of blocks"):
        unpack_blocks(data)
    assert MARKS == []
    pickle.loads(pickle.dumps(_Runs()))
    assert MARKS == ["unpickled"], "else this test would show nothing"


def test_blocks_come_back_bit_for_bit(linear_digits: nn.Module) -> None:
    blocks = list(run(digits_task(linear_digits, 4)).values())
    again, facts = unpack_blocks(pack_blocks(blocks, {"cost": 2.5}))
    assert facts == {"cost": 2.5}
    assert [each.key for each in again] == [each.key for each in blocks]
    for ours, theirs in zip(again, blocks, strict=True):
        before, after = block_arrays(theirs), block_arrays(ours)
        assert before.keys() == after.keys()
        assert all(np.array_equal(before[name], after[name]) for name in before)
