"""`bench list`: suites, candidates, attacks, recipes."""

from __future__ import annotations

import json
from typing import Any

import click
from rich.text import Text

from bench.cli.tables import table_console, table_of
from bench.suites import load_suite, suite_names


@click.command("list")
@click.argument("kind", type=click.Choice(["suites", "candidates", "attacks", "recipes"]))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(kind: str, as_json: bool) -> None:
    """List suites, candidates, attacks, or recipes for training."""
    listing = {
        "suites": _suites,
        "candidates": _candidates,
        "attacks": _attacks,
        "recipes": _recipes,
    }
    rows = listing[kind]()
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    table = table_of(*rows[0])
    for row in rows:
        table.add_row(*(Text(_cell(value)) for value in row.values()))
    table_console().print(table)


def _cell(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _suites() -> list[dict[str, Any]]:
    return [
        {
            "name": suite.name,
            "version": suite.version,
            "title": suite.title,
            "protocols": list(suite.protocols),
            "candidates": sorted(
                {name for protocol in suite.protocols for name in suite.candidates_of(protocol)}
            ),
        }
        for suite in map(load_suite, suite_names())
    ]


def _candidates() -> list[dict[str, Any]]:
    from bench.candidates.registry import list_candidates  # torch: slow to import

    suites = [load_suite(name) for name in suite_names()]
    return [
        {"name": name, "source": source, "suites": fitting}
        for name, source, fitting in list_candidates(suites)
    ]


def _attacks() -> list[dict[str, Any]]:
    from bench.attacks import ATTACKS

    return [
        {
            "name": name,
            "description": attack.description,
            "parameters": [f"{key} {value}" for key, value in attack.defaults.items()],
        }
        for name, attack in ATTACKS.items()
    ]


def _recipes() -> list[dict[str, Any]]:
    from bench.training import presets, recipes

    return [
        {
            "name": recipe,
            "presets": [name for name, preset in presets().items() if preset.recipe == recipe],
        }
        for recipe in recipes()
    ]
