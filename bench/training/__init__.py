"""Training: recipes, presets of their settings, and the command that makes a submission of them.

A recipe is one file: a model of its settings, a function that trains, and `register_recipe`. Its
presets are a YAML file, for `register_presets`. Both work from outside the package too.
"""

# Registers the shipped recipes. It comes first: later it would replace the function `recipes`.
import bench.training.recipes  # noqa: F401
from bench.training.data import TrainingData
from bench.training.loop import BatchLoss, LoopSettings, Measure, fit
from bench.training.network import (
    NetworkSettings,
    OneCycleSettings,
    clean_accuracy,
    logits,
    make_network,
    sgd_in_one_cycle,
    train_network,
)
from bench.training.optimization import Optimization
from bench.training.presets import (
    Preset,
    override,
    preset_for,
    presets,
    register_presets,
    register_shipped_presets,
)
from bench.training.recipe import (
    Conditions,
    Measurement,
    ProgressCallback,
    Recipe,
    Trained,
    TrainingProgress,
    TrainingSettings,
    TriedNumbers,
    find_recipe,
    recipes,
    register_recipe,
)
from bench.training.run import run
from bench.training.smoothing import NoisyBatch, SmoothingSettings, register_smoothing_recipe

register_shipped_presets()

__all__ = [
    "BatchLoss",
    "Conditions",
    "LoopSettings",
    "Measure",
    "Measurement",
    "NetworkSettings",
    "NoisyBatch",
    "OneCycleSettings",
    "Optimization",
    "Preset",
    "ProgressCallback",
    "Recipe",
    "SmoothingSettings",
    "Trained",
    "TrainingData",
    "TrainingProgress",
    "TrainingSettings",
    "TriedNumbers",
    "clean_accuracy",
    "find_recipe",
    "fit",
    "logits",
    "make_network",
    "override",
    "preset_for",
    "presets",
    "recipes",
    "register_presets",
    "register_recipe",
    "register_smoothing_recipe",
    "run",
    "sgd_in_one_cycle",
    "train_network",
]
