"""Published numbers: all of RobustBench's, and wrong rows named."""

from __future__ import annotations

from collections import Counter
from importlib import resources
from pathlib import Path

import pytest

from bench.claims import (
    claim_of,
    claims_at_other_radii,
    claims_for,
    load_claims,
    read_claims,
)
from bench.errors import InputError
from bench.suites import load_suite

SHIPPED = Path(str(resources.files("bench.claims") / "robustbench.csv"))
ROW = (
    "cifar10,Linf,Someone2024,A paper,https://example.org/p,ICML 2024,ResNet-18,8/255,80.00,50.00,"
    "49.50,51.0,,,True,1,,a page seen today"
)


def write(folder: Path, *rows: str) -> Path:
    header = SHIPPED.read_text(encoding="utf-8").splitlines()[0]
    path = folder / "claims.csv"
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def test_all_of_robustbench_is_there() -> None:
    claims = load_claims()
    assert len(claims) == 236
    assert sum(claim.autoattack_accuracy is not None for claim in claims) == 188
    assert Counter(claim.norm for claim in claims)["corruptions"] == 48
    assert all(claim.source == "RobustBench model_info as of 2025-03-31" for claim in claims)


def test_known_numbers() -> None:
    claim = claim_of(load_suite("cifar100-linf"), "Bai2023Improving_edm")
    assert claim is not None
    assert (claim.clean_accuracy, claim.autoattack_accuracy) == (0.8521, 0.3872)
    assert claim.best_known_accuracy == 0.3872
    base = claim_of(load_suite("cifar100-linf"), "Wang2023Better_WRN-70-16")
    assert base is not None
    assert (base.autoattack_accuracy, base.best_known_accuracy) == (0.4267, 0.4266)


@pytest.mark.parametrize(
    ("suite", "count"),
    [
        ("cifar10-linf", 93),
        ("cifar10-l2", 21),
        ("cifar100-linf", 38),
        ("imagenet-linf", 30),
        ("digits-linf", 0),
    ],
)
def test_claims_of_a_suite_best_known_first(suite: str, count: int) -> None:
    claims = claims_for(load_suite(suite))
    assert len(claims) == count
    best = [claim.best_known_accuracy or 0 for claim in claims]
    assert best == sorted(best, reverse=True)


def test_another_radius_is_another_threat_model() -> None:
    suite = load_suite("cifar10-linf")
    elsewhere = claims_at_other_radii("cifar10", suite.threat_model)
    assert [claim.eps for claim in elsewhere] == [0.031] * 6
    assert claim_of(suite, "Zhang2019Theoretically") is None


def test_a_row_that_is_right(tmp_path: Path) -> None:
    (claim,) = read_claims(write(tmp_path, ROW))
    assert (claim.clean_accuracy, claim.best_known_accuracy, claim.reported) == (0.8, 0.495, 0.51)
    assert claim.eps == pytest.approx(8 / 255)
    assert claim.unreliable is None
    assert claim.corruptions_accuracy is None


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("a page seen today", "", ["row 3", "field source"]),
        ("80.00", "180.00", ["row 3", "field clean_acc", "percentage in [0, 100]", "'180.00'"]),
        ("50.00", "nan", ["row 3", "field autoattack_acc", "percentage"]),
        ("50.00", "", ["row 3", "autoattack_acc beside threat model Linf"]),
        ("8/255", "", ["row 3", "eps beside threat model Linf"]),
        ("8/255", "-1", ["row 3", "field eps"]),
        ("cifar10,", "cifar11,", ["row 3", "field dataset", "'cifar11'"]),
        ("Linf", "L7", ["row 3", "field threat_model", "'L7'"]),
        ("https://", "javascript:", ["row 3", "field link"]),
        (",True,", ",perhaps,", ["row 3", "field additional_data", "'perhaps'"]),
        (",a page", ",more,a page", ["row 3", "expected 18 fields, got 19"]),
        ("Someone2024", "Someone2023", ["row 3", "field model_id", "first in row 2"]),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, old: str, new: str, expected: list[str]) -> None:
    path = write(tmp_path, ROW.replace("Someone2024", "Someone2023"), ROW.replace(old, new, 1))
    with pytest.raises(InputError) as caught:
        read_claims(path)
    for text in [str(path), *expected]:
        assert text in str(caught.value)


def test_wrong_columns_and_files_are_named(tmp_path: Path) -> None:
    path = write(tmp_path, ROW)
    path.write_text(path.read_text().replace("clean_acc", "clean_accuracy"))
    with pytest.raises(
        InputError, match=r"missing: clean_acc; unknown or repeated: clean_accuracy"
    ):
        read_claims(path)
    with pytest.raises(InputError, match=r"none\.csv: cannot be read"):
        read_claims(tmp_path / "none.csv")
