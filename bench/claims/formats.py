"""Checks as JSON, as JUnit XML for test reports, and as annotations of GitHub Actions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree

from bench.claims.comparison import Check
from bench.formatting import interval, percent

SKIPPED = ("not measured", "cannot tell")


def verdict_text(check: Check) -> str:
    """Return the verdict and its details on one line."""
    outcome, note = str(check.verdict.outcome), check.verdict.note
    if outcome == "not measured" and note:
        # In JSON it stays "not measured"; to people the note says what was measured instead.
        outcome = "not comparable"
    if check.lacks_measurement:
        outcome += ", but required"
    return f"{outcome}: {note}" if note else outcome


def number_text(check: Check, value: float) -> str:
    """Return a number of a check: a radius as it is, an accuracy in percent."""
    return f"{value:.3f}" if check.is_radius else f"{percent(value)}%"


def describe(check: Check) -> str:
    """Describe a check on one line: reference, measured, n, interval, p-value, verdict."""
    verdict = check.verdict
    parts = [f"reference {number_text(check, check.published)}"]
    if check.measured is not None:
        parts.append(f"measured {number_text(check, check.measured)} (n = {check.n})")
    if verdict.interval is not None:
        parts.append(f"95% interval {interval(verdict.interval)}")
    if verdict.p_value is not None:
        parts.append(f"p = {verdict.p_value:.2g}")
    return f"{verdict_text(check)} - {', '.join(parts)}; {check.source}"


def as_json(checks: Sequence[Check]) -> str:
    """Return all checks as a JSON list; accuracies are fractions."""
    records: list[dict[str, Any]] = []
    for check in checks:
        bounds = check.verdict.interval
        records.append(
            {
                "suite": check.suite,
                "name": check.name,
                "quantity": check.quantity,
                "source": check.source,
                "published": check.published,
                "measured": check.measured,
                "n": check.n,
                "interval": None if bounds is None else bounds.model_dump(),
                "p_value": check.verdict.p_value,
                "verdict": check.verdict.outcome,
                "note": check.verdict.note,
                "run": check.run or None,
                "fails": check.fails,
                "required_n": check.required,
            }
        )
    return json.dumps(records, indent=2)


def as_junit(checks: Sequence[Check]) -> str:
    """Return a JUnit XML report: one test case for each check, skipped where it cannot tell."""
    suites = ElementTree.Element("testsuites")
    for name in dict.fromkeys(check.suite for check in checks):
        members = [check for check in checks if check.suite == name]
        suite = ElementTree.SubElement(
            suites,
            "testsuite",
            name=name,
            tests=str(len(members)),
            failures=str(sum(check.fails for check in members)),
            skipped=str(sum(check.verdict.outcome in SKIPPED for check in members)),
        )
        for check in members:
            case = ElementTree.SubElement(
                suite, "testcase", classname=f"{name}.{check.name}", name=check.quantity
            )
            if check.fails:
                failure = ElementTree.SubElement(case, "failure", message=verdict_text(check))
                failure.text = describe(check)
            elif check.verdict.outcome in SKIPPED:
                ElementTree.SubElement(case, "skipped", message=verdict_text(check))
            else:
                ElementTree.SubElement(case, "system-out").text = describe(check)
    ElementTree.indent(suites)
    return ElementTree.tostring(suites, encoding="unicode", xml_declaration=True)


def as_github(checks: Sequence[Check]) -> str:
    """Return workflow commands: errors for failures, notices for other measured numbers."""
    lines = []
    for check in checks:
        if check.verdict.outcome == "not measured" and not check.fails:
            continue
        level = "error" if check.fails else "notice"
        title = _property(f"{check.suite}/{check.name}: {check.quantity}")
        lines.append(f"::{level} title={title}::{_data(describe(check))}")
    return "\n".join(lines)


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
