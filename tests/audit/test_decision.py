"""Refuted, consistent, not decided: what the records say of each claim."""

from __future__ import annotations

import pytest

from bench.auditing.claims import parse_claims
from bench.auditing.decision import LEVEL, levels, verdicts
from bench.auditing.records import GivenWitnesses, Records
from bench.store.summary import Flag
from tests.audit.records import SIZE, loaded, names, records


def outcomes(made: Records, **claims: float) -> dict[str, str]:
    """Return what came of claims, by name."""
    found = verdicts(parse_claims({k.replace("_", "-"): v for k, v in claims.items()}), made)
    return {each.name: each.outcome for each in found}


def test_claims_above_at_and_below_the_truth() -> None:
    made = records(robust=0.4)
    assert outcomes(made, clean=80, robust=50) == {"clean": "consistent", "robust": "refuted"}
    assert outcomes(made, clean=81)["clean"] == "refuted"
    assert outcomes(made, clean=80.05)["clean"] == "consistent"  # devices round near-ties
    assert outcomes(made, robust=30)["robust"] == "consistent"
    close = verdicts(parse_claims({"robust": 41}), records(robust=0.4, drawn=200))[0]
    assert close.outcome == "not decided"
    assert close.more is not None
    assert 0 < close.more <= SIZE
    assert close.low is not None
    assert close.low <= 0.4 <= (close.high or 0)


def test_nothing_that_stands_counts_under_flags_or_with_much_left_to_break() -> None:
    flag = Flag(
        name="transfer-beats-white-box", measured=0.4, threshold=0.1, meaning="m", advice="a"
    )
    assert outcomes(records(0.4, flags=[flag]), robust=30)["robust"] == "not decided"
    assert outcomes(records(0.4, left_high=0.2), robust=30)["robust"] == "not decided"
    # Breaks count all the same.
    assert outcomes(records(0.4, flags=[flag]), robust=50)["robust"] == "refuted"


def test_witnesses_refute_without_sampling() -> None:
    made = records(robust=0.4)
    broken = GivenWitnesses(
        file="adv.npz", images=SIZE, broken=list(range(1400)), error="", seconds=1.0
    )
    made = made.model_copy(update={"witnesses": [broken], "rounds": None})
    (found,) = verdicts(parse_claims({"best-known": 12}), made)
    assert (found.outcome, found.exact, found.high) == ("refuted", True, pytest.approx(0.1))
    assert outcomes(made, best_known=9)["best-known"] == "not decided"


def test_answers_that_vary_make_no_prediction_certain() -> None:
    made = records(robust=0.4).model_copy(update={"loaded": loaded(randomized=True)})
    found = names(verdicts(parse_claims({"clean": 80, "robust": 90}), made))
    assert not found["clean"].exact
    assert found["robust"].population == SIZE
    assert found["robust"].n == 600
    assert found["robust"].outcome == "refuted"


def test_claims_share_the_false_alarm() -> None:
    claims = parse_claims({"clean": 80, "robust": 40, "autoattack": 41})
    assert sum(levels(claims, clean_is_whole=False).values()) == pytest.approx(LEVEL)
    assert levels(claims, clean_is_whole=True)["robust"] == pytest.approx(LEVEL / 2)


def test_without_records_nothing_is_decided() -> None:
    assert set(outcomes(Records(), clean=80, robust=40).values()) == {"not decided"}
