"""Candidates that are loaded before their turn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bench.candidates.registry import find_candidates
from bench.runs import many
from bench.runs.many import check_each
from bench.runs.samples import Samples
from bench.runs.settings import Settings
from bench.suites import load_suite


def test_a_candidate_too_large_to_hold_does_not_displace_later_ones(
    write_submission: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(load_suite("digits-linf"), n_examples=8)
    folders = [str(write_submission(name)) for name in ("small", "large", "later")]
    references = find_candidates(folders, settings.suite)
    sizes = iter([1, 10, 1])
    monkeypatch.setattr(many, "tensor_bytes", lambda _: next(sizes))
    monkeypatch.setattr(many, "MOST_BYTES_HELD", 3)
    assert list(check_each(references, settings, Samples(settings, None))) == ["small", "later"]
