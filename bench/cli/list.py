"""`bench list`: suites, candidates, attacks, recipes, and the settings of one recipe."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import click
from rich.text import Text

from bench.cli.tables import table_console, table_of
from bench.errors import InputError
from bench.suites import load_suite, suite_names


@click.command("list")
@click.argument("kind", type=click.Choice(["suites", "candidates", "attacks", "recipes"]))
@click.argument("recipe", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON; of recipes with their settings.")
def command(kind: str, recipe: str | None, as_json: bool) -> None:
    """List suites, candidates, attacks, or recipes for training; or one recipe's settings.

    `bench list recipes RECIPE` prints what `bench train --recipe RECIPE --set KEY=VALUE` takes.
    """
    if recipe is not None:
        if kind != "recipes":
            raise InputError(f"expected no name beside {kind}, got {recipe!r}")
        _show_recipe(recipe, as_json)
        return
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
    # The settings of all recipes fill no table.
    _print_table([{key: row[key] for key in row if key != "settings"} for row in rows])


def _show_recipe(name: str, as_json: bool) -> None:
    """Print one recipe: what it trains, its presets, its settings.

    Raises:
        InputError: there is none of that name.
    """
    from bench.training import find_recipe  # torch: slow to import
    from bench.validation import described

    recipe = find_recipe(name)
    row = _recipe(name)
    if as_json:
        click.echo(json.dumps(row, indent=2))
        return
    click.echo(f"{name}: {recipe.summary}")
    if row["presets"]:
        click.echo(f"presets, whose values come before the defaults: {_cell(row['presets'])}")
    _print_table(
        [
            {
                "setting": each.name,
                "takes": each.type,
                "default": each.default_text,
                "meaning": each.meaning,
            }
            for each in described(recipe.settings_type)
        ]
    )


def _print_table(rows: Sequence[dict[str, Any]]) -> None:
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
            "protocols": list(suite.protocol_names),
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
    from bench.training import recipes

    return [_recipe(name) for name in recipes()]


def _recipe(name: str) -> dict[str, Any]:
    from bench.training import find_recipe, presets
    from bench.validation import described

    recipe = find_recipe(name)
    return {
        "name": name,
        "description": recipe.summary,
        "presets": [preset for preset, each in presets().items() if each.recipe == name],
        "settings": [asdict(each) for each in described(recipe.settings_type)],
    }
