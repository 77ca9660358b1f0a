"""The papers' claims beside what we measured, as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from bench.claims.accepted_tables import table
from bench.claims.certified import load_certified_claims
from bench.claims.claims import load_claims
from bench.claims.evidence import Evidence
from bench.claims.papers import (
    Paper,
    PaperClaim,
    PublishedNumber,
    load_paper_claims,
)
from bench.claims.rules import Finding, judge
from bench.errors import InputError
from bench.formatting import percent


def claims_text(evidence: Evidence) -> str:
    """Return an overview of the papers' claims and a section for each.

    Raises:
        InputError: `papers.yaml` names a published number that there is not.
    """
    known = load_paper_claims()
    findings = [(claim, judge(claim, evidence)) for claim in known.claims]
    overview = [
        # A claim and its paper stand once, in the first of its rows.
        (
            f"{number}. {claim.title}" if place == 0 else "",
            _short(known.papers[claim.paper]) if place == 0 else "",
            _tested(finding),
            f"**{finding.outcome}**",
            finding.reason,
        )
        for number, (claim, found) in enumerate(findings, start=1)
        for place, finding in enumerate(found)
    ]
    sections = [
        _section(number, claim, known.papers[claim.paper], found, evidence)
        for number, (claim, found) in enumerate(findings, start=1)
    ]
    header = ("claim", "paper", "our test", "verdict", "because")
    return "\n\n".join([table(header, overview), *sections])


def _section(
    number: int, claim: PaperClaim, paper: Paper, findings: Sequence[Finding], evidence: Evidence
) -> str:
    """Return a claim with its source, the paper's numbers, and each test with ours."""
    parts = [
        f"## {number}. {claim.title}",
        f'{claim.claim}: {paper.authors}, "{paper.title}", {paper.venue}, {_short(paper)}; '
        f"{claim.where}.",
    ]
    if claim.published:
        rows = [(each.what, *_published(each, evidence)) for each in claim.published]
        parts.append(table(("published", "number", "source"), rows))
    for finding in findings:
        parts.append(f"**{_tested(finding)}: {finding.outcome}.** {_sentence(finding.reason)}")
        if finding.numbers:
            images = f"measured on {finding.samples} test images" if finding.samples else "measured"
            numbers = [(each.what, each.value) for each in finding.numbers]
            parts.append(table((images, "number"), numbers))
    return "\n\n".join(parts)


def _published(number: PublishedNumber, evidence: Evidence) -> tuple[str, str]:
    """Return a published number and where it stands."""
    if number.robustbench:
        return _of_robustbench(number), f"RobustBench, {number.dataset}, `{number.robustbench}`"
    if number.certified:
        return f"average certified radius {_certified(number):.3f}", "the paper's table"
    radii = evidence.log(number.log)
    value = f"average certified radius {radii.counted.mean():.3f}"
    return value, f"computed from the published log of {len(radii.index):,} images"


def _of_robustbench(number: PublishedNumber) -> str:
    for claim in load_claims():
        place = (claim.dataset, claim.norm, claim.model_id)
        if place == (number.dataset, number.norm, number.robustbench):
            return (
                f"clean {percent(claim.clean_accuracy)}, AutoAttack "
                f"{percent(claim.autoattack_accuracy)}, lowest known "
                f"{percent(claim.best_known_accuracy)}"
            )
    raise InputError(
        f"papers.yaml: expected a model of RobustBench's leaderboard {number.dataset}, "
        f"{number.norm}; got {number.robustbench}"
    )


def _certified(number: PublishedNumber) -> float:
    for claim in load_certified_claims():
        named = (claim.model_id, claim.sigma) == (number.certified, number.sigma)
        if named and claim.average_certified_radius is not None:
            return claim.average_certified_radius
    raise InputError(
        "papers.yaml: expected an average certified radius of certified.csv, got "
        f"{number.certified}, sigma {number.sigma}"
    )


def _tested(finding: Finding) -> str:
    others = "; ".join(each.name for each in finding.test.against)
    return f"{finding.test.network.name} against {others}"


def _short(paper: Paper) -> str:
    return f"[arXiv {paper.link.rpartition('/')[2]}]({paper.link})"


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}." if text[0] != "`" else f"{text}."
