"""Candidates that cannot be told apart share a letter."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.pages.build import build_report
from bench.pages.groups import group_letters
from bench.store import Store
from tests.pages.runs import make_manifest, make_summary, save_run

N = 100


def _letters(robust: list[list[bool]]) -> list[str]:
    runs = [
        make_summary(make_manifest("digits-linf", f"c{at}", N), N, [sum(row)] * 4)
        for at, row in enumerate(robust)
    ]
    series = {run.run: pd.Series(row) for run, row in zip(runs, robust, strict=True)}
    found = group_letters(runs, series)
    return [found[run.run] for run in runs]


def test_a_group_ends_where_the_paired_test_sees_a_difference() -> None:
    def first(standing: int) -> list[bool]:
        return [place < standing for place in range(N)]

    # Nested samples: five lost and none gained give p = 0.0625, six p = 0.03.
    assert _letters([first(60), first(55), first(54), first(49), first(40)]) == list("AABBC")
    # As many lost, but others gained: no difference.
    assert _letters([first(60), [not stood for stood in first(42)]]) == list("AA")


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 2**20 - 1), min_size=2, max_size=5))
def test_letters_never_go_back(bits: list[int]) -> None:
    rows = [[bool(value >> place & 1) for place in range(20)] for value in bits]
    letters = _letters(rows)
    assert letters == sorted(letters)
    assert letters[0] == "A"


def test_the_page_shows_the_groups(tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    for name, standing in (("one", 60), ("two", 59)):
        save_run(store, make_manifest("digits-linf", name, N), 90, [standing] * 4)
    build_report(store, tmp_path / "reports")
    page = (tmp_path / "reports" / "digits-linf.html").read_text(encoding="utf-8")
    assert page.count("cannot be told apart from the first of group A") == 2
    assert "Letters are groups" in page
