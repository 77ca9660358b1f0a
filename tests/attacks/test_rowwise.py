"""Row-wise arithmetic: in pieces, compiled, or where the compiler fails, the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from bench.attacks import rowwise
from bench.attacks.rowwise import RowFunction, above, cached_rows, copy_rows


def double_marked(values: Tensor, marked: Tensor) -> None:
    values.mul_(1 + marked.unsqueeze(1))


def test_pieces_cover_all_rows_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rowwise, "_CACHE_BYTES", 4 * 7 * 3)
    values = torch.ones(10, 7)
    assert len(list(cached_rows(values))) >= 2 or torch.get_num_threads() > 3
    RowFunction(double_marked)(values, torch.arange(10))
    assert torch.equal(values[:, 0], torch.arange(10.0) + 1)


def test_no_rows_and_no_columns() -> None:
    for shape in ((0, 3), (3, 0)):
        RowFunction(double_marked)(torch.ones(shape), torch.ones(shape[0]))


@pytest.mark.parametrize(
    ("error", "fails", "problem"),
    [
        (RuntimeError("no compiler\nhere"), 0, ""),
        (RuntimeError("no compiler\nhere"), 1, ""),
        (RuntimeError("no compiler\nhere"), 2, "RuntimeError: no compiler here"),
        (AssertionError(), 2, "AssertionError"),
    ],
)
def test_compiler_may_fail(
    monkeypatch: pytest.MonkeyPatch, error: Exception, fails: int, problem: str
) -> None:
    """A stand-in for the compiler: real compilation takes too long for a test."""
    calls: list[int] = []

    def compiler(function: Any, **_: Any) -> Any:
        def compiled(*tensors: Tensor) -> None:
            if len(calls) < fails:
                calls.append(0)
                raise error
            calls.append(len(tensors[0]))
            function(*tensors)

        return compiled

    monkeypatch.setattr(torch, "compile", compiler)
    function = RowFunction(double_marked)
    function.compile()
    for rows in (4, 3, 4):
        values = torch.ones(rows, 2)
        function(values, torch.ones(rows))
        assert torch.equal(values, torch.full((rows, 2), 2.0))
    assert calls == [0] * fails + ([4, 4] if fails < 2 else [])
    assert function.problem == problem


def test_copy_rows() -> None:
    into, source = torch.zeros(4, 2, 2), torch.ones(4, 2, 2)
    copy_rows(into, torch.tensor([True, False, False, True]), source)
    assert into[:, 0, 0].tolist() == [1, 0, 0, 1]


def test_above() -> None:
    values = torch.tensor([[0.0, 1.0, 2.0]])
    assert above(values, torch.tensor([[1.0]])).tolist() == [[0.0, 0.0, 1.0]]
