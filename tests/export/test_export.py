"""Exports: what RobustBench's own code reads and ranks, and tables that papers can take."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2
import pytest
from click.testing import CliRunner, Result

from bench import robustbench  # makes `import robustbench` work
from bench.claims import Claim, load_claims
from bench.cli import main
from bench.formatting import percent, radius
from bench.store import Store
from bench.store.summary import Flag
from tests.pages.runs import make_manifest, save_run

TEMPLATE = "{% for model in models %}{{ model.name }}|{{ model[acc_field] }}\n{% endfor %}"
PAPER = {"title": "Ours & theirs", "link": "https://example.org/p", "venue": "ICLR 2026"}


@pytest.fixture
def call(tmp_path: Path) -> Callable[..., Result]:
    """Calls `bench export` on the results under tmp_path."""

    def export(*arguments: str) -> Result:
        return CliRunner().invoke(main, ["export", *arguments, f"--results-dir={tmp_path}/results"])

    return export


def _save(root: Path, candidate: str, clean: int, robust: int, **changes: Any) -> None:
    manifest = make_manifest(
        "cifar100-linf",
        candidate,
        10_000,
        **{
            "information": {"paper": PAPER, "architecture": "bench.candidates.architectures:wide"},
            "weights_sha256": {"weights": candidate},
            **changes,
        },
    )
    save_run(Store(root / "results"), manifest, clean, [robust] * 4)


def _published(claim: Claim) -> dict[str, Any]:
    """A claim as RobustBench's own files have it."""
    fields: dict[str, Any] = {"link": claim.link, "name": claim.model_id, "venue": claim.venue}
    for key, value in (
        ("clean_acc", claim.clean_accuracy),
        ("autoattack_acc", claim.autoattack_accuracy),
        ("external", claim.external_accuracy),
        ("corruptions_acc", claim.corruptions_accuracy),
    ):
        if value is not None:
            fields[key] = percent(value)
    if claim.eps is not None:
        fields["eps"] = radius(claim.eps)
    return fields


def test_robustbench_accepts_and_ranks_ours_among_all_published(
    call: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    robustbench.make_importable()
    from robustbench.leaderboard import template

    claims = load_claims()
    for claim in claims:
        path = tmp_path / "out" / "model_info" / claim.dataset / claim.norm
        path.mkdir(parents=True, exist_ok=True)
        (path / f"{claim.model_id}.json").write_text(json.dumps(_published(claim)))
    _save(tmp_path, "ours", 7000, 4000)
    result = call(
        "robustbench", "cifar100-linf/ours", f"--out={tmp_path}/out", "--authors", "A. Person"
    )
    assert result.exit_code == 0, result.output
    path = tmp_path / "out" / "model_info" / "cifar100" / "Linf" / "ours.json"
    assert json.loads(path.read_text()) == {
        "link": "https://example.org/p",
        "name": "Ours & theirs",
        "authors": "A. Person",
        "additional_data": False,
        "number_forward_passes": 1,
        "dataset": "cifar100",
        "venue": "ICLR 2026",
        "architecture": "wide",
        "eps": "8/255",
        "clean_acc": "70.00",
        "reported": "40.00",
        "autoattack_acc": "40.00",
        "unreliable": False,
    }
    form = (tmp_path / "out" / "ours.md").read_text()
    assert "- **Threat Model**: Linf\n- **eps**: 8/255\n- **Clean accuracy**: 70.00%" in form

    # The wheel of RobustBench lacks its template.
    minimal = jinja2.DictLoader({"leaderboard.html.j2": TEMPLATE})
    monkeypatch.setattr(template, "PackageLoader", lambda *_: minimal)
    read = 0
    for board in {(claim.dataset, claim.norm) for claim in claims}:
        page = template.generate_leaderboard(*board, models_folder=f"{tmp_path}/out/model_info")
        read += len(page.splitlines())
    assert read == 236 + 1
    page = template.generate_leaderboard(
        "cifar100", "Linf", models_folder=f"{tmp_path}/out/model_info"
    )
    place = [line.partition("|")[0] for line in page.splitlines()].index("Ours & theirs")
    best = [
        claim.best_known_accuracy or 0
        for claim in claims
        if (claim.dataset, claim.norm) == ("cifar100", "Linf")
    ]
    assert place == sum(value > 0.40 for value in best)
    assert 0 < place < len(best)


FLAG = Flag(name="zero-gradients", measured=0.5, threshold=0.01, meaning="m", advice="a")


@pytest.mark.parametrize(
    ("changes", "suite", "expected"),
    [
        ({"overrides": {"n_examples": 200}}, "cifar100-linf", "got a variant (n_examples = 200)"),
        ({}, "digits-linf", "expected a leaderboard of RobustBench"),
    ],
)
def test_what_robustbench_has_no_place_for_is_refused(
    call: Callable[..., Result],
    tmp_path: Path,
    changes: dict[str, Any],
    suite: str,
    expected: str,
) -> None:
    manifest = make_manifest(suite, "ours", 200, **changes)
    save_run(Store(tmp_path / "results"), manifest, 150, [80] * 4)
    result = call("robustbench", f"{suite}/ours", f"--out={tmp_path}/out")
    assert result.exit_code == 2
    assert expected in result.output
    assert not (tmp_path / "out").exists()


def test_flags_and_lower_numbers_are_said(call: Callable[..., Result], tmp_path: Path) -> None:
    manifest = make_manifest("cifar100-linf", "ours", 100)
    save_run(Store(tmp_path / "results"), manifest, 80, [40] * 4, [FLAG])
    assert call("robustbench", "cifar100-linf/ours", f"--out={tmp_path}/out").exit_code == 0
    info = json.loads((tmp_path / "out/model_info/cifar100/Linf/ours.json").read_text())
    assert info["unreliable"] is True
    assert "zero-gradients" in info["footnote"]


def test_tables(call: Callable[..., Result], tmp_path: Path) -> None:
    _save(tmp_path, "our_best", 7000, 4000)
    _save(tmp_path, "a|b", 8000, 3512)
    latex = call("latex", "--suite", "cifar100-linf").output
    assert r"1 & our\_best & wide & 70.00 & \textbf{40.00} & \textbf{40.00} & no \\" in latex
    assert r"2 & a|b & wide & \textbf{80.00} & 35.12 & 35.12 & no \\" in latex
    markdown = call("markdown", "--suite", "cifar100-linf").output
    assert "| 2 | a\\|b | wide | 80.00 | 35.12 | 35.12 | no |" in markdown
    out = tmp_path / "board.csv"
    assert call("csv", "--suite", "cifar100-linf", f"--out={out}").exit_code == 0
    rows = list(csv.DictReader(io.StringIO(out.read_text())))
    assert [row["Model"] for row in rows] == ["our_best", "a|b"]
    assert call("csv", "--suite", "cifar10-linf").exit_code == 2


def test_tables_are_written_without_matplotlib() -> None:
    code = "import sys, bench.cli.export; sys.exit('matplotlib' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
