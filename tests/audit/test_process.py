"""The candidate's process: apart from the network, within its time, with what it did on record."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

import bench
from bench.auditing.process import run_apart
from bench.auditing.records import Order
from bench.auditing.run import read_records
from bench.cli import main
from bench.errors import InputError

SUITE = {
    "name": "quick",
    "version": 1,
    "title": "Quick",
    "data": "digits",
    "n_examples": 60,
    "threat_model": {"norm": "Linf", "eps": 0.04},
    "protocols": {"standard": {"attacks": [{"name": "apgd-ce", "parameters": {"steps": 10}}]}},
}


def test_a_process_leaves_the_network_or_says_that_it_did_not() -> None:
    code = (
        "from bench.auditing.isolation import isolate; import json, socket; kept = isolate(None);"
        "print(json.dumps([vars(kept), [name for _, name in socket.if_nameindex()]]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    kept, interfaces = json.loads(done.stdout)
    if kept["network"]:
        assert "it had the network" in kept["network_note"]
    else:
        assert set(interfaces) <= {"lo", "ifb0", "ifb1", "tunl0", "sit0"}


def test_a_process_that_sleeps_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / "sleeps"
    folder.mkdir()
    (folder / "submission.yaml").write_text("name: s\ndataset: digits\narchitecture: model:build\n")
    (folder / "model.py").write_text("import time\ntime.sleep(1000)\n")
    order = Order(
        candidate=str(folder),
        suite="digits-linf",
        claims={"robust": 0.5},
        budget_seconds=1,
        level=0.05,
        seed=0,
        out=str(tmp_path),
    )
    (tmp_path / "order.json").write_text(order.model_dump_json())
    ended = run_apart(tmp_path / "order.json", tmp_path, 2.0, None)
    assert (ended.killed_for, ended.code) == ("time", -9)
    assert ended.seconds < 30
    assert not read_records(tmp_path).finished


def test_records_that_are_none_are_refused(tmp_path: Path) -> None:
    (tmp_path / "audit-records.json").write_text('{"loaded": "<script>"}')
    with pytest.raises(InputError, match="may have changed them"):
        read_records(tmp_path)


def test_an_audit_from_beginning_to_end(
    write_submission: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    suite = tmp_path / "quick.yaml"
    suite.write_text(yaml.safe_dump(SUITE))
    folder = write_submission()
    call = ["audit", str(folder), "--suite", str(suite), "--budget", "10m", "--device", "cpu"]
    result = CliRunner().invoke(main, [*call, "--claim", "robust=99.5"])
    assert result.exit_code == 4, result.output
    assert "robust: refuted" in result.output
    out = tmp_path / "audits" / "quick"
    (page,) = out.rglob("audit.html")
    content = json.loads(page.with_name("audit.json").read_text(encoding="utf-8"))
    assert content["ended"] == "by itself"
    assert content["rounds"]["flags_checked"] == "full", content["not_done"]


def test_what_cannot_be_audited_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="write a submission"):
        bench.audit(object(), {"robust": 40}, "digits-linf")  # type: ignore[arg-type]
    for option, value, message in (
        ("budget", "1s", "at least 10 s"),
        ("memory", 0.1, "at least 1 GiB"),
        ("results", tmp_path / "none", "expected a folder"),
        ("witnesses", [tmp_path / "none"], "expected a file"),
    ):
        with pytest.raises(InputError, match=message):
            bench.audit(
                "digits-robust", {"robust": 40}, "digits-linf", out=tmp_path, **{option: value}
            )
