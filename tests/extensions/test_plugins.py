"""What installed packages register is there when a command starts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bench import plugins
from bench.cli import main
from bench.errors import InputError

loaded: list[str] = []


def refuse() -> None:
    """Stand in for a module whose registration is refused."""
    raise InputError("expected a new name, got 'evaluation'")


class Marked:
    """Stands in for a module: being looked up is being imported."""

    def __getattr__(self, name: str) -> None:
        if name == "broken":
            refuse()
        loaded.append(name)


modules = Marked()


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    plugins.load_plugins.cache_clear()
    loaded.clear()
    yield
    plugins.load_plugins.cache_clear()


def _list_with(monkeypatch: pytest.MonkeyPatch, value: str) -> Result:
    entry = EntryPoint("mine", value, plugins.ENTRY_POINT_GROUP)
    monkeypatch.setattr(plugins, "entry_points", lambda group: [entry])
    return CliRunner().invoke(main, ["list", "suites"])


def test_a_plugin_is_imported_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(2):
        assert _list_with(monkeypatch, f"{__name__}:modules.attacks").exit_code == 0
    assert loaded == ["attacks"]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("no_such_package.kinds", "plugin mine (no_such_package.kinds): cannot be imported"),
        (f"{__name__}:modules.broken", "expected a new name, got 'evaluation'"),
    ],
)
def test_a_plugin_that_fails_is_named(
    value: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = _list_with(monkeypatch, value)
    assert result.exit_code == 2
    assert message in result.output
    assert "plugin mine" in result.output


def test_a_file_is_imported_for_this_command_and_its_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugins, "entry_points", lambda group: [])
    monkeypatch.setenv(plugins.VARIABLE, "")
    file = tmp_path / "plugin_of_a_test.py"
    file.write_text(f"from {__name__} import loaded\nloaded.append('file')\n")
    for _ in range(2):
        result = CliRunner().invoke(main, ["--plugin", str(file), "list", "suites"])
        assert result.exit_code == 0, result.output
        plugins.load_plugins.cache_clear()
    assert loaded == ["file"]
    assert os.environ[plugins.VARIABLE] == str(file.resolve())


def test_a_file_that_cannot_be_a_plugin_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugins, "entry_points", lambda group: [])
    for name, text, message in (
        ("broken_plugin.py", "1 / 0", "ZeroDivisionError"),
        ("torch.py", "", "a name that no other module has; rename torch.py"),
        ("plugin.txt", "", "expected a Python file"),
    ):
        monkeypatch.setenv(plugins.VARIABLE, "")
        (tmp_path / name).write_text(text)
        result = CliRunner().invoke(main, ["--plugin", str(tmp_path / name), "list", "suites"])
        plugins.load_plugins.cache_clear()
        assert result.exit_code == 2
        assert message in result.output
        assert f"plugin {tmp_path / name}" in result.output
