"""A report as Markdown, to be pasted into a review form."""

from __future__ import annotations

from collections.abc import Iterable

from bench.auditing.report import Report
from bench.auditing.verdict import Verdict, bounds_text
from bench.formatting import count, duration, percent


def form(report: Report) -> str:
    """Return a report as Markdown; foreign text stands on one line and formats nothing."""
    lines = [
        f"# Audit of {plain(report.candidate)}",
        "",
        f"{plain(report.suite_title)} ({plain(report.suite)}, {plain(report.threat_model)}), "
        f"{report.finished}, bench {report.bench_version}, seed {report.seed}, "
        f"{duration(report.seconds)} of {duration(report.budget_seconds)}.",
        "",
        "| claim | claimed | measured | bounds | images | verdict |",
        "| --- | --- | --- | --- | --- | --- |",
        *(_claim(each) for each in report.verdicts),
        "",
        *(f"- {each.name}: **{each.outcome}**. {_reason(each)}" for each in report.verdicts),
        "",
        f"False alarm of all claims in all looks together: {100 * report.level:g}%.",
        "",
        "## Checklist",
        "",
        "| | what | source | figure |",
        "| --- | --- | --- | --- |",
        *(
            f"| {'**' + each.state + '**' if each.is_concern else each.state} | {each.what} "
            f"| {each.source} | {plain(each.figure)} |"
            for each in report.checklist
        ),
        "",
        "## What was tried",
        "",
        *_or_nothing(
            f"- {plain(each.name)}: {count(each.broken)} of {count(each.images)} images broken, "
            f"{count(each.passes)} passes, {duration(each.seconds)}"
            for each in report.tried
        ),
        "",
        "## What was left out",
        "",
        *_or_nothing(
            f"- {plain(each.what)}{' failed' if each.is_failure else ''}: {plain(each.why)}"
            for each in report.not_done
        ),
        "",
        "## How the code was run",
        "",
        f"- {isolation_text(report)}",
        "",
        "## What to run next",
        "",
        *_or_nothing(
            f"- `{each.command}`: {plain(each.why)}"
            + (f" (about {duration(each.seconds)})" if each.seconds is not None else "")
            for each in report.next
        ),
    ]
    return "\n".join(lines) + "\n"


def plain(text: str) -> str:
    """Return foreign text on one line of Markdown, its special characters as themselves."""
    flat = " ".join(str(text).split())
    return "".join(f"\\{c}" if c in "\\`*[]<>|#" else c for c in flat)


def isolation_text(report: Report) -> str:
    """Return in sentences how the candidate's code was run, and what kept it apart."""
    if report.isolation is None:
        return "The candidate's process did not begin."
    text = f"{report.isolation.network_note}; {report.isolation.memory_note}"
    as_user = "It ran as the user, who can read and write files."
    return f"{text[:1].upper()}{text[1:]}. {as_user}"


def _claim(each: Verdict) -> str:
    cells = (
        each.title,
        percent(each.claimed),
        percent(each.measured),
        bounds_text(each),
        f"{count(each.n)} of {count(each.population)}",
        f"**{each.outcome}**",
    )
    return f"| {' | '.join(cells)} |"


def _reason(each: Verdict) -> str:
    text = plain(each.reason[:1].upper() + each.reason[1:])
    if each.more is not None:
        price = "" if each.more_seconds is None else f", about {duration(each.more_seconds)}"
        text += f"; about {count(each.more)} more images are expected to decide it{price}"
    return f"{text}."


def _or_nothing(lines: Iterable[str]) -> list[str]:
    return list(lines) or ["- nothing"]
