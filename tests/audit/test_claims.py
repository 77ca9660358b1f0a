"""What is claimed, as it is written."""

from __future__ import annotations

import pytest

from bench.auditing.claims import parse_claims
from bench.errors import InputError


def test_claims_are_percentages() -> None:
    clean, robust = parse_claims(["clean=85.21", "autoattack = 38.72%"])
    assert (clean.accuracy, clean.is_clean) == (pytest.approx(0.8521), True)
    assert (robust.accuracy, robust.title) == (
        pytest.approx(0.3872),
        "robust accuracy under AutoAttack",
    )
    assert parse_claims({"robust": 40}) == parse_claims(["robust=40.0"])
    assert parse_claims(["robust=0.38%"])[0].accuracy == pytest.approx(0.0038)
    assert parse_claims(["robust=0"])[0].accuracy == 0


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "what is claimed"),
        (["clean"], "NAME=PERCENT"),
        (["accuracy=40"], "one of clean, autoattack, best-known, robust"),
        (["certified=40"], "bench run --protocol certified"),
        (["robust=40", "robust=41"], "each name once"),
        (["robust=101"], "from 0 to 100"),
        (["robust=-1"], "from 0 to 100"),
        (["robust=nan"], "from 0 to 100"),
        (["robust=0.38"], "write robust=38 if"),
    ],
)
def test_other_claims_are_refused(texts: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_claims(texts)
