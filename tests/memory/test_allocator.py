"""Freed memory is kept where the allocator can do it, and nothing fails where it cannot."""

from __future__ import annotations

import ctypes
import sys

import pytest
import torch

from bench.memory.allocator import keep_freed_memory

CPU = torch.device("cpu")


def test_it_may_be_asked_for_again() -> None:
    assert keep_freed_memory(CPU) == keep_freed_memory(CPU)


def test_on_a_gpu_nothing_is_changed() -> None:
    assert not keep_freed_memory(torch.device("cuda"))


def test_other_allocators_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def library(_: None) -> object:
        return object()

    monkeypatch.setattr(ctypes, "CDLL", library)
    assert not keep_freed_memory(CPU)
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not keep_freed_memory(CPU)
