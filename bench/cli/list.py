"""`bench list`: suites, candidates, attacks, recipes, a recipe's settings, and complete runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.text import Text

from bench.cli import options
from bench.cli.tables import table_console, table_of
from bench.errors import InputError
from bench.formatting import moment, percent
from bench.store import Store
from bench.store.summary import Summary
from bench.suites import load_suite, suite_name, suite_names

OF_A_SUITE = ("candidates", "runs")
"""What --suite can be used with."""


@click.command("list")
@click.argument("kind", type=click.Choice(["suites", "candidates", "attacks", "recipes", "runs"]))
@click.argument("recipe", required=False)
@options.suite(required=False)
@options.results_dir
@click.option("--json", "as_json", is_flag=True, help="Print JSON; of recipes with their settings.")
def command(
    kind: str, recipe: str | None, suite_name: str | None, results_dir: Path, as_json: bool
) -> None:
    """List suites, candidates, attacks, recipes for training, or complete runs.

    Candidates are those that fit --suite; runs are those of --results-dir, of --suite if it is
    given, the newest last.

    `bench list recipes RECIPE` prints what `bench train --recipe RECIPE --set KEY=VALUE` takes.
    """
    if suite_name is not None and kind not in OF_A_SUITE:
        raise InputError(f"--suite can only be used with {' and '.join(OF_A_SUITE)}, not {kind}")
    if recipe is not None:
        if kind != "recipes":
            raise InputError(f"expected no name beside {kind}, got {recipe!r}")
        _show_recipe(recipe, as_json)
        return
    listing: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "suites": _suites,
        "candidates": lambda: _candidates(suite_name),
        "attacks": _attacks,
        "recipes": _recipes,
        "runs": lambda: _runs(results_dir, suite_name),
    }
    rows = listing[kind]()
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    elif not rows:
        click.echo(f"no {kind}")
    else:
        _print_table([_shown(row) for row in rows])


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    """Return what a table shows of a row: no settings of all recipes, times to the minute."""
    return {
        key: moment(value) if key == "finished" else value
        for key, value in row.items()
        if key != "settings"
    }


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
    """Return a value as a cell shows it: accuracies in percent."""
    if value is None or isinstance(value, float):
        return percent(value)
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value)


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


def _candidates(suite: str | None) -> list[dict[str, Any]]:
    """Return all candidates, or those that are known to fit a suite."""
    from bench.candidates.registry import list_candidates  # torch: slow to import

    suites = [load_suite(name) for name in ([suite] if suite else suite_names())]
    return [
        {"name": name, "source": source, "suites": fitting}
        for name, source, fitting in list_candidates(suites)
        if fitting or suite is None
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


def _runs(results_dir: Path, suite: str | None) -> list[dict[str, Any]]:
    """Return the complete runs of a folder, of a suite if it is named, the newest last.

    Raises:
        InputError: there is no such folder or suite.
    """
    if not results_dir.is_dir():
        raise InputError(f"--results-dir: expected a folder with results, got {results_dir}")
    store = Store(results_dir, skips_unreadable=True)
    return [_run(run) for run in store.summaries(suite_name(suite) if suite else None)]


def _run(summary: Summary) -> dict[str, Any]:
    manifest = summary.manifest
    certifies = summary.kind.certifies
    return {
        "run": f"{manifest.suite}/{manifest.candidate}@{summary.run}",
        "kind": manifest.kind,
        "protocol": manifest.protocol,
        "images": summary.n_examples,
        "clean": summary.clean_accuracy,
        "robust": None if certifies else summary.robust_accuracy,
        "certified": summary.robust_accuracy if certifies else None,
        "finished": summary.finished,
    }
