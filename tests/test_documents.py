"""The documents: links lead somewhere, and commands name options that there are."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from bench.cli import main
from bench.training import recipes

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
FROM_THE_ROOT = {"changelog.md", "contributing.md"}  # made by docs/hooks.py
LINK = re.compile(r"\]\(([^)\s]+)\)")


def _anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        if link.startswith("http"):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in _anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_name_options_that_there_are(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for block in re.findall(r"```console\n(.*?)```", text, re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            _, found, arguments = line.partition("bench ")
            if not found or not line.startswith(("bench ", "pip ")):
                continue
            words = shlex.split(arguments, comments=True)
            command: click.Command = main
            while isinstance(command, click.Group) and words:
                if words[0].startswith("-"):
                    if words[0] not in _options(command) or len(words) < 3:
                        break  # an option alone, such as --help
                    del words[:2]  # with its value: the command comes next
                    continue
                known = command.get_command(click.Context(command), words.pop(0))
                assert known is not None, line
                command = known
            assert {word for word in words if word.startswith("--")} <= _options(command), line


def _options(command: click.Command) -> set[str]:
    return {each for parameter in command.params for each in parameter.opts}


def test_the_index_and_the_navigation_list_every_page() -> None:
    pages = {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")}
    listed = set(LINK.findall((DOCS / "index.md").read_text(encoding="utf-8")))
    assert {link for link in listed if link.endswith(".md")} == pages - {"index.md"}
    configuration = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    assert sorted(_leaves(configuration["nav"])) == sorted(pages | FROM_THE_ROOT)


def _leaves(navigation: Any) -> list[str]:
    """Return the pages of a part of the navigation."""
    if isinstance(navigation, str):
        return [navigation]
    parts = navigation.values() if isinstance(navigation, dict) else navigation
    return [page for part in parts for page in _leaves(part)]


def test_the_site_has_a_table_of_each_recipes_settings() -> None:
    pytest.importorskip("mkdocs")
    specification = importlib.util.spec_from_file_location("hooks", DOCS / "hooks.py")
    assert specification is not None
    assert specification.loader is not None
    hooks = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(hooks)
    text = (DOCS / "reference" / "configuration.md").read_text(encoding="utf-8")
    page = hooks.on_page_markdown(text, None, None, None)
    assert "<!--" not in page
    for name, recipe in recipes().items():
        section = page.partition(f"\n### {name}\n")[2].partition("\n### ")[0]
        for field in recipe.settings_type.model_fields:
            assert f"\n| `{field}` |" in section, (name, field)
    assert "\n| `threat_models` | list of " in page  # of a submission
    assert "What it was trained to withstand" in page


def test_the_site_asks_no_other_server() -> None:
    configuration = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    assert configuration["theme"]["font"] is False
    assert "mermaid" not in "".join(page.read_text(encoding="utf-8") for page in PAGES)


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.py")), ids=lambda p: p.stem)
def test_every_example_is_shown_on_a_page(example: Path) -> None:
    line = f'--8<-- "examples/{example.name}"'
    assert any(line in page.read_text(encoding="utf-8").splitlines() for page in PAGES)
