"""Presets: a recipe's settings for a data set, under a name, read from YAML files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.candidates.candidate import Paper
from bench.errors import InputError
from bench.training.recipe import TrainingSettings, find_recipe
from bench.validation import StrictModel, read_yaml, validate
from bench.validation.yaml_loader import parse_yaml

SHIPPED = Path(__file__).with_name("presets")


@dataclass(frozen=True)
class Preset:
    """Settings of a recipe for one data set."""

    recipe: str
    dataset: str
    settings: TrainingSettings
    paper: Paper


class _PresetEntry(StrictModel):
    """A preset as a file has it."""

    dataset: str
    settings: dict[str, Any]
    paper: Paper | None = None
    """The recipe's, if not given."""


class _RecipeEntry(StrictModel):
    """The presets of a recipe; the first for a data set is its default."""

    paper: Paper
    presets: dict[str, _PresetEntry]


class _PresetFile(StrictModel):
    """A file of presets."""

    blocks: Any = None
    """What YAML aliases in the rest of the file refer to."""
    recipes: dict[str, _RecipeEntry]


_PRESETS: dict[str, Preset] = {}


def register_presets(path: Path) -> None:
    """Make the presets of a YAML file known by their names.

    Its recipes must be registered before: their settings models validate the settings.
    `bench/training/presets/` has examples.

    Raises:
        InputError: If the file, a recipe or a setting is wrong, or a preset's name is taken.
    """
    found: dict[str, Preset] = {}
    for recipe, entry in validate(_PresetFile, read_yaml(path), path).recipes.items():
        settings_type = find_recipe(recipe, f"{path}: ").settings_type
        for name, preset in entry.presets.items():
            if name in _PRESETS or name in found:
                raise InputError(f"{path}: expected a new name for a preset, got {name!r}")
            settings = validate(settings_type, preset.settings, f"{path}: preset {name}")
            found[name] = Preset(recipe, preset.dataset, settings, preset.paper or entry.paper)
    _PRESETS.update(found)


def register_shipped_presets() -> None:
    """Register the presets that come with the package."""
    for path in sorted(SHIPPED.glob("*.yaml")):
        register_presets(path)


def presets() -> dict[str, Preset]:
    """Return every registered preset by its name."""
    return dict(_PRESETS)


def preset_for(recipe: str, dataset: str) -> str:
    """Return the name of a recipe's default preset for a data set: the first of several.

    Raises:
        InputError: If there is none.
    """
    find_recipe(recipe)
    names: dict[str, str] = {}
    for name, preset in _PRESETS.items():
        if preset.recipe == recipe:
            names.setdefault(preset.dataset, name)
    if dataset not in names:
        raise InputError(
            f"expected a data set of {', '.join(names) or '(no preset is registered)'} for the "
            f"recipe {recipe}; got {dataset!r}"
        )
    return names[dataset]


def override(settings: TrainingSettings, overrides: Mapping[str, Any]) -> TrainingSettings:
    """Return the settings with some fields replaced, validated again.

    Args:
        settings: The settings.
        overrides: New values by field. A text is read as YAML, eps also as a fraction;
            `architecture_args.<name>` sets one argument of the architecture.

    Raises:
        InputError: If there is no such field, or its value is not allowed.
    """
    content = settings.model_dump()
    for key, value in overrides.items():
        try:
            parsed = parse_yaml(value) if isinstance(value, str) else value
        except InputError as error:
            raise InputError(
                f"setting {key}: expected a YAML value, got {value!r}: {error}"
            ) from error
        field, _, argument = key.partition(".")
        if argument and field == "architecture_args" and field in content:
            content[field] = {**content[field], argument: parsed}
        else:
            content[key] = parsed
    return validate(type(settings), content, "settings")
