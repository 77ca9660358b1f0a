"""The package's imports point one way, and what a kind of run is asked for is a property of it."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import bench

ROOT = Path(bench.__file__).parent

LIBRARY = frozenset({"data", "attacks", "suites", "candidates", "store", "formatting"})
ALLOWED: dict[str, frozenset[str]] = {
    "data": frozenset(),
    "attacks": frozenset(),
    "suites": frozenset({"attacks", "data"}),
    "candidates": frozenset({"data", "suites"}),
    "store": frozenset({"data", "suites"}),
    "formatting": frozenset({"store", "suites"}),
    "certification": frozenset({"attacks", "store"}),
    "kinds": frozenset({"certification", "data", "formatting", "store"}),
    "claims": frozenset({"certification", "data", "formatting", "store", "suites"}),
    "executors": frozenset({"candidates", "store"}),
    "engines": frozenset(
        {"attacks", "candidates", "certification", "executors", "store", "suites"}
    ),
    "flags": frozenset({"certification", "engines"}) | LIBRARY - {"formatting"},
    "training": frozenset({"engines"}) | LIBRARY - {"formatting"},
    "pages": frozenset({"certification", "claims", "data", "formatting", "store", "suites"}),
    "view": frozenset({"formatting", "pages", "store"}),
    "export": frozenset({"data", "formatting", "pages", "store"}),
    "runs": frozenset({"certification", "claims", "engines", "executors", "flags", "kinds"})
    | LIBRARY,
    "api": frozenset({"claims", "engines", "executors", "kinds", "pages", "runs"}) | LIBRARY,
    "auditing": frozenset({"claims", "engines", "executors", "pages", "runs"}) | LIBRARY,
    "monitor": frozenset({"api"}) | LIBRARY - {"formatting", "store"},
    "testing": frozenset({"api", "formatting"}),
    "autoattack": frozenset({"api", "engines"}) | LIBRARY,
    "cli": frozenset(
        {
            "auditing",
            "claims",
            "engines",
            "executors",
            "export",
            "flags",
            "pages",
            "runs",
            "training",
            "view",
        }
    )
    | LIBRARY,
    "__main__": frozenset({"cli"}),
}
"""What each package may import beside the modules at the top level, which import none of these."""

MODULES_AT_THE_TOP = {"__main__", "autoattack", "formatting"}
"""Of those, what is one module and no package."""

HELPERS = {"memory", "statistics", "validation"}
"""Packages that all may import, as they may the modules at the top level."""

RECORDS = {"bench.store.records", "bench.store.tables"}
"""All that engines know of the store."""

LOADED_BY_NAME = {
    ("bench.store.kinds", "bench.kinds"): (
        "the store asks for the kinds of runs that come with the package"
    ),
    ("bench.kinds.attacked", "bench.runs.evaluation"): "what makes evaluations imports torch",
    ("bench.kinds.certified", "bench.runs.certification"): "so does what makes certifications",
    ("bench.kinds.express", "bench.runs.express"): "so does what makes express evaluations",
    ("bench.kinds.sweep", "bench.runs.sweep"): "and what makes sweeps",
    ("bench.attacks", "bench.api.attacks"): (
        "attacks as functions are offered where users look for them, and scheduled by an engine"
    ),
    ("bench.import_hook", "bench.autoattack"): "`autoattack.state` reads the fast engine's states",
    ("bench.robustbench", "bench.autoattack"): (
        "RobustBench's own evaluation runs the fast engine's AutoAttack where a user asks for it"
    ),
    ("bench.robustbench", "bench.engines.reference"): (
        "RobustBench's own evaluation, when a user calls it, runs the reference's AutoAttack"
    ),
}
"""Modules that are named as text, against the direction, and why."""


@dataclass(frozen=True)
class Import:
    """One module's import of another of the package."""

    importer: str
    imported: str

    @property
    def packages(self) -> tuple[str, str]:
        """The parts of the package that the two modules are in."""
        return _part(self.importer), _part(self.imported)

    @property
    def is_allowed(self) -> bool:
        """Whether it points in the declared direction."""
        importing, imported = self.packages
        # Helpers at the top level may be imported by all, and import only each other.
        allowed = ALLOWED.get(importing, frozenset()) | {importing}
        return imported not in ALLOWED or imported in allowed


def _part(module: str) -> str:
    return module.removeprefix("bench").removeprefix(".").partition(".")[0]


def _modules() -> dict[str, Path]:
    found = {}
    for path in ROOT.rglob("*.py"):
        name = ".".join(["bench", *path.relative_to(ROOT).with_suffix("").parts])
        found[name.removesuffix(".__init__")] = path
    return found


MODULES = _modules()
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}


def _for_types_only(tree: ast.Module) -> set[int]:
    """Return the nodes that only type checkers read."""
    return {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }


def _imports() -> Iterator[Import]:
    """Yield all imports of the package's modules, those inside functions too."""
    for importer, tree in TREES.items():
        skipped = _for_types_only(tree)
        for node in ast.walk(tree):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                full = [f"{node.module}.{alias.name}" for alias in node.names]
                names = [name if name in MODULES else node.module for name in full]
            for name in names:
                if name in MODULES and name != importer and id(node) not in skipped:
                    yield Import(importer, name)


def _named_modules() -> Iterator[Import]:
    """Yield the modules that a module names as text, alone or as module:object, to import them."""
    for importer, tree in TREES.items():
        if importer == "bench":  # its table of names is the interface
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                named = Import(importer, node.value.partition(":")[0])
                if node.value.startswith("bench.") and named.imported in MODULES:
                    yield named


IMPORTS = frozenset(_imports())


def test_every_package_has_a_place_in_the_direction() -> None:
    packages = {_part(name) for name, path in MODULES.items() if path.name == "__init__.py"}
    assert packages - {"", *HELPERS} == ALLOWED.keys() - MODULES_AT_THE_TOP


def test_imports_point_in_the_declared_direction() -> None:
    wrong = [f"{each.importer} imports {each.imported}" for each in IMPORTS if not each.is_allowed]
    assert not wrong, "\n".join(sorted(wrong))


@pytest.mark.parametrize("level", ["modules", "packages"])
def test_there_is_no_cycle(level: str) -> None:
    graph: dict[str, set[str]] = {}
    for each in IMPORTS:
        source, target = (each.importer, each.imported) if level == "modules" else each.packages
        # The package itself holds no more than the version.
        if source != target and target not in ("", "bench"):
            graph.setdefault(source, set()).add(target)
    order = list(TopologicalSorter(graph).static_order())  # raises CycleError, which names it
    assert order


def test_engines_know_the_records_of_the_store_and_nothing_else() -> None:
    known = {each.imported for each in IMPORTS if each.packages == ("engines", "store")}
    assert known <= RECORDS


def test_modules_are_loaded_by_name_only_where_there_is_a_reason() -> None:
    found = {each for each in _named_modules() if not each.is_allowed}
    assert found == {Import(*pair) for pair in LOADED_BY_NAME}


KIND_COMPARISON = re.compile(r"(manifest\.kind|kind\.name)\s*(==|!=|in\b|not in\b)")


def test_nothing_compares_names_of_kinds() -> None:
    wrong = [
        f"{name}: {line.strip()}"
        for name, path in MODULES.items()
        if _part(name) not in ("runs", "store")
        for line in path.read_text(encoding="utf-8").splitlines()
        if KIND_COMPARISON.search(line)
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import bench", "torch"),
        ("import bench; bench.Linf(8 / 255)", "torch"),
        ("import bench.cli.export", "matplotlib"),
        ("import bench.cli.main", "torch"),
        ("import bench.pages.boards, bench.claims, bench.export", "bench.runs.session"),
    ],
)
def test_importing_a_part_leaves_out_what_it_does_not_need(statement: str, absent: str) -> None:
    code = f"{statement}; import sys; sys.exit({absent!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
