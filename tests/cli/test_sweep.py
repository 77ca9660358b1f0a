"""`bench sweep` as users call it: weights, records, the page, wrong input."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from bench.cli import main
from bench.errors import InputError
from bench.runs.sweep import mix_name, read_alphas
from bench.store import Store
from bench.store.summary import SweepSummary

SUITE = {
    "name": "quick",
    "version": 1,
    "title": "Quick",
    "data": "digits",
    "n_examples": 20,
    "threat_model": {"norm": "Linf", "eps": 0.04},
    "protocols": {"standard": {"attacks": [{"name": "apgd-ce", "parameters": {"steps": 5}}]}},
}


@pytest.fixture
def call(tmp_path: Path, write_submission: Callable[..., Path]) -> Callable[..., Result]:
    """Calls `bench sweep` on a quick suite with two linear bases."""
    suite = tmp_path / "quick.yaml"
    suite.write_text(yaml.safe_dump(SUITE))
    bases = [str(write_submission(name)) for name in ("steep", "flat")]

    def run(*arguments: str) -> Result:
        folders = ["--results-dir", f"{tmp_path}/results", "--report-dir", f"{tmp_path}/reports"]
        command = ["sweep", "--suite", str(suite), "--accurate", bases[0], "--robust", bases[1]]
        quick = ["--steps", "3", "--targets", "1", "--accurate-scale", "3"]
        return CliRunner().invoke(main, [*command, *quick, *folders, *arguments])

    return run


def test_curve_full_runs_and_page(call: Callable[..., Result], tmp_path: Path) -> None:
    first = call("--alphas", "0:1:0.5", "--full", "0.5")
    assert first.exit_code == 0, first.output
    store = Store(tmp_path / "results")
    runs = {run.manifest.kind: run for run in store.summaries("quick")}
    sweep = runs["sweep"]
    assert isinstance(sweep, SweepSummary)
    assert [point.alpha for point in sweep.sweep] == [0, 0.5, 1]
    assert sweep.manifest.protocol == "cheap"
    assert runs["evaluation"].manifest.candidate.endswith(",alpha=0.5,accurate_scale=3.0")
    assert sweep.sweep[1].clean_accuracy == runs["evaluation"].clean_accuracy
    table = store.folder(sweep.manifest).samples()
    assert len(table) == 3 * SUITE["n_examples"]
    page = (tmp_path / "reports" / "quick.html").read_text(encoding="utf-8")
    assert "an upper bound" in page
    assert "nothing was computed" in call("--alphas", "0,0.5,1").output
    folder = store.folder(sweep.manifest).path.parent.name
    show = ["show", f"quick/{folder}", "--results-dir", f"{tmp_path}/results"]
    assert "after the cheap attack" in CliRunner().invoke(main, show).output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--alphas", "0:1.2:0.1"], r"--alphas: expected weights in \[0, 1\], got 1.2"),
        (["--alphas", "0:1"], "--alphas: expected <first>:<last>:<step>"),
        (["--alphas", "0:1:0"], "--alphas: expected <first>:<last>:<step>"),
        (["--alphas", "half"], "got 'half'"),
        (["--alphas", "0:1:1e-9"], "at most 1000 weights"),
        (["--full", "0.5,-0.1"], r"--full: expected weights in \[0, 1\], got -0.1"),
        (
            ["--robust", "cifar100-robust"],
            "cifar100-robust is for cifar100, suite quick has digits; use cifar100",
        ),
    ],
)
def test_wrong_input_is_named_and_nothing_runs(
    call: Callable[..., Result], tmp_path: Path, arguments: list[str], message: str
) -> None:
    result = call(*arguments)
    assert result.exit_code == 2, result.output
    assert re.search(message, result.output), result.output
    assert not list(tmp_path.glob("results/**/run.json"))


def test_bases_of_different_classes(
    call: Callable[..., Result], write_submission: Callable[..., Path]
) -> None:
    folder = write_submission("nine")
    code = (folder / "model.py").read_text() + "\n\ndef nine():\n    return linear()[:1]\n"
    (folder / "model.py").write_text(code)
    fields = yaml.safe_load((folder / "submission.yaml").read_text())
    fields = {key: value for key, value in fields.items() if key not in {"weights", "sha256"}}
    (folder / "submission.yaml").write_text(yaml.safe_dump(fields | {"architecture": "model:nine"}))
    result = call("--robust", str(folder))
    assert result.exit_code == 2
    assert "bases with one number of classes, got an accurate base with 10" in result.output


@given(st.integers(0, 40), st.integers(1, 40))
def test_ranges_have_both_ends_and_exact_weights(first: int, count: int) -> None:
    last = first + count
    alphas = read_alphas(f"{first}/80:{last}/80:1/80", "--alphas")
    assert alphas == tuple((first + place) / 80 for place in range(count + 1))
    names = [mix_name("g", "h", alpha) for alpha in alphas]
    assert [float(name.rpartition("=")[2]) for name in names] == list(alphas)


def test_lists_are_sorted_and_each_weight_is_there_once() -> None:
    assert read_alphas("0.7, 0.5,0.70", "--full") == (0.5, 0.7)
    with pytest.raises(InputError, match="--full"):
        read_alphas("", "--full")
