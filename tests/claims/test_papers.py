"""The papers' claims: verdicts that follow from records, and pages that are made from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from pydantic import ValidationError

from bench.claims import evidence as evidence_module
from bench.claims.accepted import load_accepted
from bench.claims.accepted_samples import (
    AcceptedCertification,
    SampleOutcomes,
    load_accepted_certifications,
    load_sample_outcomes,
    write_accepted_certifications,
    write_sample_outcomes,
)
from bench.claims.evidence import LOGS, Evidence, load_evidence
from bench.claims.filled_pages import MARKER, filled
from bench.claims.papers import PaperClaim, load_paper_claims, read_paper_claims
from bench.claims.rules import Outcome, judge
from bench.cli import main
from bench.errors import InputError

ROOT = Path(__file__).parents[2]
SUITE = "digits-l2"
FILLED = [ROOT / "docs" / "claims.md", ROOT / "README.md"]


@pytest.mark.parametrize("page", FILLED, ids=lambda page: page.name)
def test_pages_are_what_the_command_makes_of_the_records(page: Path, tmp_path: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert MARKER.search(text)
    copy = tmp_path / page.name
    copy.write_text(text, encoding="utf-8")
    done = CliRunner().invoke(main, ["check", "--fill", str(copy)])
    assert done.exit_code == 0, done.output
    assert copy.read_text(encoding="utf-8") == text, f"run bench check --fill {page.name}"


def test_every_claim_has_a_finding_for_each_test() -> None:
    known, evidence = load_paper_claims(), load_evidence()
    for claim in known.claims:
        findings = judge(claim, evidence)
        assert [each.test for each in findings] == claim.tests
        assert all(each.reason for each in findings)
    logs = [claim for claim in known.claims if claim.rule == "larger-average-radius"]
    assert [each.outcome for each in judge(logs[0], evidence)][:2] == ["seen", "seen"]


def test_kept_samples_agree_with_accepted_accuracies(tmp_path: Path) -> None:
    accuracies = {row.run: row for row in load_accepted()}
    outcomes, certifications = load_sample_outcomes(), load_accepted_certifications()
    for row in outcomes:
        if row.protocol == "express":
            continue
        accepted = accuracies[row.run]
        assert row.candidate == accepted.candidate
        assert len(row.clean) == accepted.n_examples
        assert row.standing("clean").mean() == pytest.approx(accepted.clean_accuracy)
        assert row.standing("robust").mean() == pytest.approx(accepted.robust_accuracy)
    write_sample_outcomes(outcomes, tmp_path / "samples.csv")
    assert load_sample_outcomes(tmp_path / "samples.csv") == outcomes
    write_accepted_certifications(certifications, tmp_path / "certified.csv")
    assert load_accepted_certifications(tmp_path / "certified.csv") == certifications


def _identity(candidate: str, protocol: str) -> dict[str, Any]:
    return {
        "suite": SUITE,
        "suite_version": 2,
        "candidate": candidate,
        "weights_sha256": "a" * 64,
        "protocol": protocol,
        "engine": "fast",
        "seed": 0,
        "step": 1,
        "run": candidate,
        "finished": "2026-01-01T00:00:00+00:00",
        "bench_version": "0",
    }


def _outcomes(candidate: str, clean: str, robust: str) -> SampleOutcomes:
    return SampleOutcomes(**_identity(candidate, "adaptive"), clean=clean, robust=robust)


def _certification(
    candidate: str, radii: str, fresh_votes: str | None = None
) -> AcceptedCertification:
    return AcceptedCertification(
        **_identity(candidate, "certified"),
        procedure="fixed",
        sigma=0.5,
        noise_samples=1000,
        radii=radii,
        fresh_votes=fresh_votes or "-" * len(radii.split()),
    )


def _claim(rule: str, **changes: Any) -> PaperClaim:
    test = {"suite": SUITE, "network": {"candidate": "new"}, "against": [{"candidate": "old"}]}
    content = {"title": "t", "claim": "c", "paper": "p", "where": "w", "rule": rule}
    return PaperClaim.model_validate(content | {"tests": [test]} | changes)


def _judged(claim: PaperClaim, *records: SampleOutcomes | AcceptedCertification) -> Outcome:
    evidence = Evidence(
        [],
        [row for row in records if isinstance(row, SampleOutcomes)],
        [row for row in records if isinstance(row, AcceptedCertification)],
        ROOT / "bench" / "claims" / LOGS,
    )
    (finding,) = judge(claim, evidence)
    return finding.outcome


@pytest.mark.parametrize(
    ("clean_gain", "robust_loss", "outcome"),
    [(40, 5, "seen"), (5, 40, "not seen"), (10, 10, "not decided")],
)
def test_gains_are_held_against_losses(clean_gain: int, robust_loss: int, outcome: str) -> None:
    old = _outcomes("old", "1" * 100 + "0" * 100, "1" * 100 + "0" * 100)
    clean = "1" * (100 + clean_gain) + "0" * (100 - clean_gain)
    robust = "1" * (100 - robust_loss) + "0" * (100 + robust_loss)
    assert _judged(_claim("gains-more-than-it-loses"), old, _outcomes("new", clean, robust)) == (
        outcome
    )


@pytest.mark.parametrize(
    ("gain", "n", "outcome"),
    [(40, 1000, "seen"), (0, 1000, "not seen"), (2, 100, "not decided"), (4, 1000, "not seen")],
)
def test_equal_robustness_then_accuracy(gain: int, n: int, outcome: str) -> None:
    claim = _claim("more-accurate-at-equal-robustness", least_gain=0.015, tolerance=0.003)
    half = n // 2
    robust = "1" * 20 + "0" * (n - 20)
    old = _outcomes("old", "1" * half + "0" * half, robust)
    new = _outcomes("new", "1" * (half + gain) + "0" * (half - gain), robust)
    assert _judged(claim, old, new) == outcome


def test_only_rivals_that_are_as_robust_count_against_it() -> None:
    claim = _claim("more-accurate-at-equal-robustness", least_gain=0.015, tolerance=0.003)
    new = _outcomes("new", "1" * 60 + "0" * 40, "1" * 50 + "0" * 50)
    # More accurate and more robust than the only rival; then less accurate, but more robust.
    assert _judged(claim, new, _outcomes("old", "1" * 50 + "0" * 50, "0" * 100)) == "seen"
    assert _judged(claim, new, _outcomes("old", "1" * 90 + "0" * 10, "0" * 100)) == "not decided"


@pytest.mark.parametrize(
    ("new", "old", "outcome"),
    [
        ("0.9 0.8 0.7 -", "0.4 0.3 0.3 -", "seen"),
        ("0.4 0.3 0.3 -", "0.9 0.8 0.7 -", "not seen"),
        ("0.4 0.9 - 0.3", "0.9 0.4 0.2 -", "not decided"),
    ],
)
def test_radii_are_compared_by_image(new: str, old: str, outcome: str) -> None:
    rows = [
        _certification(name, " ".join([radii] * 20)) for name, radii in [("new", new), ("old", old)]
    ]
    assert _judged(_claim("larger-average-radius"), *rows) == outcome


@pytest.mark.parametrize(
    ("radii", "outcome"),
    [((0.6, 0.62, 0.58), "seen"), ((0.9, 0.5, 0.4), "not decided"), ((0.3, 0.3, 0.3), "not seen")],
)
def test_trainings_differ_by_more_than_their_spread(
    radii: tuple[float, float, float], outcome: str
) -> None:
    test = {
        "suite": SUITE,
        "network": {"candidate": "new", "trainings": 3},
        "against": [{"candidate": "old", "trainings": 2}],
    }
    trainings = [("new", radii), ("old", (0.4, 0.42))]
    rows = [
        _certification(f"{name}-seed{seed}", " ".join([f"{radius}", f"{radius + 0.1:.2f}"] * 20))
        for name, each in trainings
        for seed, radius in enumerate(each)
    ]
    claim = _claim("larger-average-radius", tests=[test])
    assert _judged(claim, *rows) == outcome
    assert _judged(claim, *rows[1:]) == "not decided"
    with pytest.raises(ValidationError, match="one training"):
        _claim("certificates-hold", tests=[test])


def test_only_certificates_of_the_same_draws_are_compared() -> None:
    claim = _claim("larger-average-radius")
    new, old = (
        _certification("new", "0.9 " * 199 + "0.8"),
        _certification("old", "0.1 " * 199 + "0.2"),
    )
    other = old.model_copy(update={"noise_samples": 5000, "finished": "2026-02-01T00:00:00+00:00"})
    assert _judged(claim, new, other) == "not decided"
    assert _judged(claim, new, old, other) == "seen"


def test_certificates_hold_unless_fresh_votes_contradict_one() -> None:
    rule = _claim("certificates-hold")
    certified = _certification("new", "0.6 0.6 0.1 -"), _certification("old", "0.7 0.6 0.2 0.1")
    assert _judged(rule, *certified) == "not decided"  # nothing attacked it
    assert _judged(rule, *certified, _outcomes("new", "1110", "1100")) == "seen"
    broken = _outcomes("new", "1110", "1000")
    assert _judged(rule, *certified, broken) == "not decided"
    for signs, outcome in [("-1--", "seen"), ("-0--", "not seen"), ("1---", "not decided")]:
        asked = _certification("new", "0.6 0.6 0.1 -", signs), certified[1]
        assert _judged(rule, *asked, broken) == outcome
    none = _certification("new", "0.1 0.1 0.1 -"), certified[1]
    assert _judged(rule, *none, _outcomes("new", "1110", "1100")) == "not seen"


def test_few_contradictions_are_errors_and_many_are_not() -> None:
    rule, old = _claim("certificates-hold"), _certification("old", "0.7 " * 12)
    attacked = _outcomes("new", "1" * 12, "1" * 12)
    for signs, outcome in [("0" + "1" * 11, "seen"), ("000" + "1" * 9, "not seen")]:
        new = _certification("new", "0.6 " * 12, signs)
        evidence = Evidence([], [attacked], [new, old], ROOT)
        (finding,) = judge(rule, evidence)
        assert finding.outcome == outcome
        assert "none" not in finding.reason


def test_certificates_and_attacks_of_other_weights_are_not_joined() -> None:
    rule, old = _claim("certificates-hold"), _certification("old", "0.7 0.6")
    new, attacked = _certification("new", "0.7 0.6"), _outcomes("new", "11", "11")
    assert _judged(rule, new, old, attacked) == "seen"
    retrained = attacked.model_copy(update={"weights_sha256": "f" * 64})
    assert _judged(rule, new, old, retrained) == "not decided"


def test_engines_agree_or_not() -> None:
    against = [{"candidate": "new", "reference": True}]
    test = {"suite": SUITE, "network": {"candidate": "new"}, "against": against}
    claim = _claim("same-robust-accuracy", tolerance=0.02, tests=[test])
    mine = _outcomes("new", "1" * 400, "1" * 200 + "0" * 200)
    theirs = mine.model_copy(update={"engine": "reference", "run": "other"})
    assert _judged(claim, mine, theirs) == "seen"
    few = mine.model_copy(update={"clean": "1" * 20, "robust": "1" * 20})
    assert _judged(claim, few, theirs) == "not decided"
    weak = theirs.model_copy(update={"robust": "1" * 300 + "0" * 100})
    assert _judged(claim, mine, weak) == "not seen"


def test_a_missing_record_decides_nothing() -> None:
    for rule in evidence_rules():
        assert _judged(_claim(rule)) == "not decided"


def evidence_rules() -> list[str]:
    """Return the rules that the shipped claims use."""
    return sorted({claim.rule for claim in load_paper_claims().claims})


def test_wrong_pages_and_claims_are_named(tmp_path: Path) -> None:
    for text, expected in [
        ("nothing", "expected a line such as <!-- bench check: claims -->"),
        ("<!-- bench check: other -->\n", "expected a table of claims, measured, certified"),
        ("<!-- bench check: measured -->\n", "expected a line <!-- end of measured -->"),
    ]:
        with pytest.raises(InputError, match=expected):
            filled(text, "page.md")
    shipped = (ROOT / "bench" / "claims" / "papers.yaml").read_text(encoding="utf-8")
    path = tmp_path / "papers.yaml"
    for old, new, expected in [
        ("paper: smoothmix", "paper: smoothmax", "expected papers of the file, got smoothmax"),
        ("rule: certificates-hold", "rule: magic", "rule"),
        ("robustbench: Bai2024MixedNUTS", "robustbnech: x", "robustbnech"),
    ]:
        path.write_text(shipped.replace(old, new, 1), encoding="utf-8")
        with pytest.raises(InputError, match=expected):
            read_paper_claims(path)
    with pytest.raises(InputError, match="expected a certification log"):
        evidence_module.read_log(tmp_path / "none.tsv.gz")
