"""What the site's pages are made of beside the files in this folder; called by mkdocs."""

from __future__ import annotations

import html
import importlib
import inspect
import re
from pathlib import Path
from typing import Any, get_args, get_origin

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from bench.training import recipes
from bench.validation import described, meanings

ROOT = Path(__file__).parent.parent
FROM_THE_ROOT = {"changelog.md": "CHANGELOG.md", "contributing.md": "CONTRIBUTING.md"}
"""Pages whose text lies beside the package, where people look for it."""
FIELDS = re.compile(r"^<!-- fields: ([\w.]+):(\w+) -->$", re.MULTILINE)
LOADED_FROM_ELSEWHERE = re.compile(
    r"<(?:script|img|iframe|source|video)\b[^>]*\bsrc=.?(?:https?:)?//[^>]*"
    r"|<link\b[^>]*\bhref=.?(?:https?:)?//[^>]*"
)
RECIPES = re.compile(r"^<!-- recipes -->$", re.MULTILINE)
COMMANDS = re.compile(r"^<!-- commands: ([\w.]+):(\w+) -->$", re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages whose text lies beside the package."""
    for page, source in FROM_THE_ROOT.items():
        text = (ROOT / source).read_text(encoding="utf-8").replace("](docs/", "](")
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Replace comments by what they stand for.

    `<!-- fields: module:Model -->`, `<!-- commands: module:group -->` and `<!-- recipes -->`.
    """
    markdown = RECIPES.sub(lambda _: _recipes(), markdown)
    markdown = COMMANDS.sub(lambda found: _commands(found[1], found[2]), markdown)
    return FIELDS.sub(lambda found: _table(found[1], found[2]), markdown)


def on_post_build(config: MkDocsConfig) -> None:
    """Refuse a page that loads anything from another server: the site is read without a network."""
    for page in Path(config.site_dir).rglob("*.html"):
        if found := LOADED_FROM_ELSEWHERE.search(page.read_text(encoding="utf-8")):
            raise PluginError(f"{page}: expected no request to another server, got {found[0]}")


def _commands(module: str, name: str) -> str:
    """Return a section for each command of a click group, with what --help says of its options."""
    group: click.Group = getattr(importlib.import_module(module), name)
    context = click.Context(group, info_name="bench")
    return "\n".join(_command(context, each, 2) for each in group.list_commands(context))


def _command(parent: click.Context, name: str, level: int) -> str:
    """Return a command's section, and those of its own commands."""
    assert isinstance(parent.command, click.Group)
    command = parent.command.get_command(parent, name)
    assert command is not None, name
    context = click.Context(command, info_name=name, parent=parent)
    path = context.command_path
    arguments = " ".join(command.collect_usage_pieces(context))
    text = inspect.cleandoc(command.help or "")
    lines = [f"{'#' * level} {path} {{ data-toc-label='{name}' }}", "", text, ""]
    lines += ["```text", f"{path} {arguments}", "```", ""]
    records = [each.get_help_record(context) for each in command.get_params(context)]
    records = [each for each in records if each and not each[0].startswith("-h, --help")]
    for option, meaning in records:
        lines += [f"`{option}`", f":   {_escaped(meaning)}", ""]
    if isinstance(command, click.Group):
        below = command.list_commands(context)
        lines += [_command(context, each, level + 1) for each in below]
    return "\n".join(lines)


def _recipes() -> str:
    """Return a section for each recipe, with a table of its settings."""
    lines = []
    for name, recipe in recipes().items():
        lines += [f"### {name}", "", f"{recipe.summary[0].upper()}{recipe.summary[1:]}.", ""]
        lines += ["| setting | takes | default | meaning |", "| --- | --- | --- | --- |"]
        lines += [
            f"| `{each.name}` | {_escaped(each.type)} | `{each.default_text}` | {each.meaning} |"
            for each in described(recipe.settings_type)
        ]
        lines.append("")
    return "\n".join(lines)


def _escaped(text: str) -> str:
    """Return a text as one paragraph in which nothing is markup."""
    return re.sub(r"([*_`\[\]])", r"\\\1", html.escape(" ".join(text.split()), quote=False))


def _table(module: str, name: str) -> str:
    """Return the fields of a pydantic model as a table."""
    model: type[BaseModel] = getattr(importlib.import_module(module), name)
    texts = meanings(model)
    rows = ["| field | type | default | meaning |", "| --- | --- | --- | --- |"]
    for field, info in model.model_fields.items():
        parts = [*filter(None, [info.description and f"{info.description}.", texts.get(field)])]
        text = " ".join(part[0].upper() + part[1:] for part in parts) + _examples(info)
        kind = _type(info.annotation).replace("|", "\\|")
        rows.append(f"| `{field}` | {kind} | {_default(info)} | {text} |")
    return "\n".join(rows)


def _default(info: FieldInfo) -> str:
    """Return a field's default as YAML would have it."""
    if info.is_required():
        return "required"
    default = info.get_default(call_default_factory=True)
    if default in (None, "", (), {}):
        return ""
    return f"`{str(default).lower()}`" if isinstance(default, bool) else f"`{default}`"


def _examples(info: FieldInfo) -> str:
    """Return the first example of a field, as YAML."""
    examples = info.examples or [
        each
        for part in get_args(info.annotation)
        for meta in getattr(part, "__metadata__", ())
        for each in getattr(meta, "examples", None) or []
    ]
    return f" Example: `{_yaml(examples[0])}`" if examples else ""


def _yaml(value: Any) -> str:
    """Return a value in YAML's flow style."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_yaml(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_yaml(each) for each in value) + "]"
    return str(value)


def _type(annotation: Any) -> str:
    """Return a type in words that a writer of YAML knows."""
    words = {
        str: "text",
        int: "whole number",
        float: "number",
        bool: "true or false",
        Path: "path",
        Any: "anything",
        type(None): "",
    }
    if annotation in words:
        return words[annotation]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if hasattr(annotation, "__metadata__"):
        return _type(annotation.__origin__)
    if origin is tuple or origin is list:
        return f"list of {_type(arguments[0])}"
    if origin is dict:
        return f"mapping to {_type(arguments[1])}"
    if str(origin) == "typing.Literal":
        return " or ".join(f"`{each}`" for each in arguments)
    if arguments:  # a union
        return " or ".join(filter(None, map(_type, arguments)))
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"[{annotation.__name__}](#{annotation.__name__.lower()})"
    return getattr(annotation, "__name__", str(annotation))
