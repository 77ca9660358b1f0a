"""Replays on a pretend GPU: what they stand for, and when there are none."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from bench.attacks import replay
from bench.attacks.replay import CALLS_BEFORE_RECORDING, Replayed
from tests.pretend_cuda import PretendCuda

LATER = CALLS_BEFORE_RECORDING + 4


@pytest.fixture
def cuda() -> Iterator[PretendCuda]:
    with PretendCuda() as device:
        yield device


def add_and_halve(total: Tensor, values: Tensor) -> Tensor:
    """Return half of the total after the values were added, twice what is passed is used up."""
    total.add_(values.mul_(2))
    return total / 2


def test_replays_do_what_calls_do(cuda: PretendCuda) -> None:
    replayed, total = Replayed(add_and_halve), torch.zeros(3, device="cuda")
    for call in range(1, LATER + 1):
        cuda.launches.clear()
        half = replayed(total, torch.full((3,), float(call), device="cuda"))
        assert torch.equal(half.cpu(), torch.full((3,), call * (call + 1) / 2))
        assert torch.equal(total.cpu(), 2 * half.cpu())
    assert not replayed.problem
    assert cuda.launches["graph"] == 1
    assert cuda.launches["aten.add_"] == 0


def test_a_call_on_other_memory_is_no_replay(cuda: PretendCuda) -> None:
    replayed, totals = Replayed(add_and_halve), torch.zeros(2, 3, device="cuda")
    for call in range(LATER + 3):
        replayed(totals[int(call >= LATER)], torch.ones(3, device="cuda"))
    replayed(totals[0, :2], torch.ones(2, device="cuda"))
    assert totals[:, 2].tolist() == [2 * LATER, 6]
    assert totals[0, 0] == 2 * LATER + 2


def test_nothing_waits(cuda: PretendCuda) -> None:
    replayed, total = Replayed(add_and_halve), torch.zeros(3, device="cuda")
    for _ in range(LATER):
        replayed(total, torch.ones(3, device="cuda"))
    assert not cuda.syncs


def test_what_cannot_be_recorded_goes_on_as_it_is(cuda: PretendCuda) -> None:
    def asks(total: Tensor) -> None:
        total.add_(1)
        if total.sum() > 0:
            total.add_(1)

    replayed, total = Replayed(asks), torch.zeros(3, device="cuda")
    for _ in range(LATER):
        replayed(total)
    assert total.tolist() == [2 * LATER] * 3
    assert replayed.problem.startswith("RuntimeError: CUDA error: operation not permitted")


def test_replays_that_differ_are_not_used(cuda: PretendCuda) -> None:
    calls = 0

    def counts(total: Tensor) -> None:
        nonlocal calls
        calls += 1
        total.add_(calls)

    replayed, total = Replayed(counts), torch.zeros(3, device="cuda")
    for _ in range(CALLS_BEFORE_RECORDING):
        replayed(total)
    before = total[0].item()
    replayed(total)  # calls it once for its result, and once for the recording
    assert total[0].item() == before + CALLS_BEFORE_RECORDING + 1
    replayed(total)
    assert total[0].item() == before + 2 * CALLS_BEFORE_RECORDING + 4
    assert replayed.problem == "a replay gave other values"


def test_a_recording_that_memory_cannot_hold_is_none() -> None:
    with PretendCuda(memory=2 * 3 * 4) as cuda:
        replayed, total = Replayed(lambda total: total.add_(1)), torch.zeros(3, device="cuda")
        for _ in range(LATER):
            replayed(total)
        assert total.tolist() == [LATER] * 3
        assert replayed.problem.startswith("OutOfMemoryError")
        assert cuda.launches["graph"] == 0


def test_what_is_forgotten_is_recorded_anew(cuda: PretendCuda) -> None:
    replayed, total = Replayed(add_and_halve), torch.zeros(3, device="cuda")
    for _ in range(2):
        for _ in range(LATER):
            replayed(total, torch.ones(3, device="cuda"))
        held = cuda.held
        replayed.forget()
        assert cuda.held < held
    assert total.tolist() == [4 * LATER] * 3
    # The one that is compared with a call, and those after it.
    assert cuda.launches["graph"] == 2 * (LATER - CALLS_BEFORE_RECORDING)


def test_a_processor_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "CALLS_BEFORE_RECORDING", 0)
    total = torch.zeros(3)
    for _ in range(3):
        Replayed(add_and_halve)(total, torch.ones(3))
    assert total.tolist() == [6] * 3
