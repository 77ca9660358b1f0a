"""A report: its checklist, its page and its form, from records alone."""

from __future__ import annotations

import json
from pathlib import Path

from bench.auditing.claims import parse_claims
from bench.auditing.page import write_report
from bench.auditing.process import Ended
from bench.auditing.records import Records, Trouble
from bench.auditing.report import Report, make_report
from bench.suites import load_suite
from tests.audit.records import ENDED, loaded, records

HOSTILE = "<script>alert(1)</script> | `x` [a](http://b)"


def report(made: Records, ended: Ended = ENDED, **claims: float) -> Report:
    """Return the report of an audit of `mine`."""
    return make_report(
        suite=load_suite("digits-linf"),
        threat_model="Linf, eps = 0.1",
        candidate="mine",
        claims=list(parse_claims(claims or {"clean": 80, "robust": 50})),
        records=made,
        ended=ended,
        fetched="",
        seed=0,
        budget_seconds=60.0,
        finished="2026-01-01T00:00:00+00:00",
        bench_version="0",
    )


def states(made: Report) -> dict[str, str]:
    """Return the state of each row of the checklist."""
    return {each.what: each.state for each in made.checklist}


def test_a_row_says_what_the_records_say() -> None:
    found = states(report(records(0.4)))
    assert found["clean accuracy equals the claim"] == "done"
    assert found["more iterations do not lower accuracy"] == "not done"
    assert found["attacks through the defence's own parts"] == "not applicable"
    assert found["attack power: planted weaknesses are found"] == "not done"
    full = states(report(records(0.4, flags_checked="full")))
    assert full["more iterations do not lower accuracy"] == "done"
    mix = records(0.4).model_copy(
        update={"loaded": loaded(capabilities=["mix"], adaptive_attacks=["mix-apgd"])}
    )
    row = next(each for each in report(mix).checklist if "own parts" in each.what)
    assert (row.state, row.is_concern) == ("not done", True)
    assert "mix-apgd" in row.figure


def test_what_was_completed_stays_when_the_process_is_killed() -> None:
    made = records(0.4).model_copy(update={"finished": False, "stage": "flags"})
    killed = Ended(code=-9, killed_for="time", last_line="", seconds=90.0, most_memory=0)
    found = report(made, killed)
    assert (found.ended, found.outcome) == ("killed: time", "refuted")
    assert any(each.is_failure and "flags" in each.why for each in found.not_done)


def test_foreign_text_stays_text(tmp_path: Path) -> None:
    trouble = Trouble(stage="load", reason=HOSTILE, is_failure=True)
    made = Records(stage="end", finished=True, troubles=[trouble])
    files = write_report(report(made), tmp_path)
    page = files["page"].read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page
    assert "default-src 'none'" in page
    form = files["form"].read_text(encoding="utf-8")
    assert "\\<script\\>" in form
    assert "\\[a\\]" in form
    assert "\\`x\\`" in form
    assert json.loads(files["json"].read_text(encoding="utf-8"))["outcome"] == "not decided"


def test_how_the_code_was_run_is_no_part_of_what_was_left_out(tmp_path: Path) -> None:
    files = write_report(report(records(0.4)), tmp_path)
    told = "No network; watched. It ran as the user, who can read and write files."
    page = files["page"].read_text(encoding="utf-8")
    assert f"<h2>How the code was run</h2>\n  <p>{told}</p>" in page
    assert "<h2>What was left out</h2>" in page
    form = files["form"].read_text(encoding="utf-8")
    assert f"## How the code was run\n\n- {told}\n" in form
    assert "## What was left out\n" in form
