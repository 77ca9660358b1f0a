"""Freed memory is kept where the allocator can do it, and nothing fails where it cannot."""

from __future__ import annotations

import ctypes
import sys

import pytest

from bench.memory import keep_freed_memory


def test_it_may_be_asked_for_again() -> None:
    assert keep_freed_memory() == keep_freed_memory()


def test_other_allocators_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def library(_: None) -> object:
        return object()

    monkeypatch.setattr(ctypes, "CDLL", library)
    assert not keep_freed_memory()
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not keep_freed_memory()
