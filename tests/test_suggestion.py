"""Names suggested for one that is not known."""

from __future__ import annotations

import pytest

from bench.suggestion import did_you_mean

KNOWN = ["digits-robust", "digits-standard", "cifar10-robust"]


@pytest.mark.parametrize(
    ("name", "most", "question"),
    [
        ("digits-robst", 1, "did you mean digits-robust?"),
        ("digits-robst", 2, "did you mean digits-robust or digits-standard?"),
        ("weather", 3, ""),
    ],
)
def test_the_nearest_names_are_suggested(name: str, most: int, question: str) -> None:
    assert did_you_mean(name, KNOWN, most) == question


def test_a_higher_cutoff_asks_for_more_similar_names() -> None:
    assert did_you_mean("robust", KNOWN, cutoff=0.5)
    assert not did_you_mean("robust", KNOWN, cutoff=0.9)
