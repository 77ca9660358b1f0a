"""Training: recipes, presets of their settings, and the command that makes a submission of them."""

from bench.training.presets import Preset, preset_for, presets
from bench.training.progress import Measurement, Progress, ProgressCallback, TriedNumbers
from bench.training.recipes import Recipe, recipes
from bench.training.run import run

__all__ = [
    "Measurement",
    "Preset",
    "Progress",
    "ProgressCallback",
    "Recipe",
    "TriedNumbers",
    "preset_for",
    "presets",
    "recipes",
    "run",
]
