"""Accepted results of the shipped submissions: readable, and of the weights that ship."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.candidates.registry import shipped_submissions
from bench.candidates.submission import read_submission
from bench.claims.accepted import load_accepted, write_accepted
from bench.errors import InputError
from bench.suites import suite_names


def test_accepted_results_are_of_the_shipped_weights(tmp_path: Path) -> None:
    rows = load_accepted()
    shipped = {name: read_submission(path) for name, path in shipped_submissions().items()}
    for row in rows:
        assert row.suite in suite_names()
        submission = shipped[row.candidate]
        for entry in row.weights_sha256.split():
            part, _, digest = entry.rpartition("=")
            base = getattr(submission.bases, part, None)
            assert digest == (submission if base is None else shipped[base]).sha256
        assert row.robust_accuracy <= row.autoattack_accuracy <= row.clean_accuracy
    write_accepted(rows, tmp_path / "again.csv")
    assert load_accepted(tmp_path / "again.csv") == rows


def test_wrong_rows_are_named(tmp_path: Path) -> None:
    path = tmp_path / "accepted.csv"
    write_accepted(load_accepted()[:1], path)
    path.write_text(path.read_text().replace(",0.", ",7.", 1))
    with pytest.raises(InputError, match=r"accepted\.csv: row 2: field clean_accuracy"):
        load_accepted(path)
