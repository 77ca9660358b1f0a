"""Commands that run no model, and every --help, import none of the packages that models need."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from bench import engines
from bench.cli.main import COMMANDS
from bench.engines import acceleration, certification
from bench.runs.settings import ENGINES, PRECISIONS, PROCEDURES
from bench.store import Store
from tests.pages.runs import make_manifest, save_run

SCRIPT = """
import json, sys
from bench.cli import main

heavy = {"torch", "torchvision", "robustbench", "timm", "transformers", "sklearn", "matplotlib"}
for arguments in json.loads(sys.argv[1]):
    try:
        main(arguments, prog_name="bench")
    except SystemExit as end:
        assert not end.code, (arguments, end.code)
    expected = {"matplotlib"} if arguments[0] == "report" else set()
    found = heavy & sys.modules.keys()
    assert found <= expected, (arguments, found)
"""


def _call_all(*commands: list[str]) -> None:
    """Call commands in a fresh interpreter, one after the other, and look at its modules."""
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(commands)],
        check=False,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_commands_that_read_import_no_torch(tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    save_run(store, make_manifest("digits-linf", "mine", 20), 19, (12, 11, 11, 10))
    save_run(store, make_manifest("digits-linf", "theirs", 20), 19, (12, 11, 11, 11))
    save_run(store, make_manifest("cifar10-linf", "mine", 20), 19, (12, 11, 11, 10))
    results = ["--results-dir", str(store.root)]
    own = tmp_path / "own.yaml"  # a user's suite, whose attacks readers do not look up
    own.write_text(Path("bench/suites/digits-linf.yaml").read_text(encoding="utf-8"))
    _call_all(
        ["show", "digits-linf/mine", *results],
        ["show", "digits-linf/mine", "--json", *results],
        ["status", "digits-linf/mine", *results],
        ["diff", "digits-linf/mine", "digits-linf/theirs", *results],
        ["check", "--suite", "digits-linf", *results],
        ["check", "--suite", str(own), *results],
        ["export", "csv", "--suite", str(own), *results],
        ["export", "robustbench", "cifar10-linf/mine", "--out", str(tmp_path / "out"), *results],
        ["list", "suites"],
        ["list", "runs", *results],
        ["report", "--out", str(tmp_path / "reports"), *results],
    )


def test_help_imports_no_torch() -> None:
    _call_all(["--help"], *([name, "--help"] for name in COMMANDS))


def test_options_offer_what_the_engines_know() -> None:
    assert ENGINES == engines.ENGINES
    assert PRECISIONS == acceleration.PRECISIONS
    assert PROCEDURES == certification.PROCEDURES


def test_finding_a_candidate_imports_only_what_its_name_needs() -> None:
    slow = {"timm", "torchvision"}
    code = f"import sys, bench.candidates.registry; print({slow} & {{*sys.modules}})"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "set()\n"


def test_a_network_by_name_warns_of_nothing() -> None:
    """Else pytest with `filterwarnings = error` ends at it."""
    code = "import bench.candidates.architectures"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
