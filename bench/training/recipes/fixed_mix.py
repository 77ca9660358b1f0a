"""Fixed mix: nothing is trained; the weight and the bases' scales are chosen.

Y. Bai et al., "Improving the Accuracy-Robustness Trade-Off of Classifiers via Adaptive Smoothing",
SIMODS 2024, arXiv 2301.12554, section 3.
"""

from __future__ import annotations

from itertools import product

from pydantic import Field

from bench.candidates.mix import Mix
from bench.training.data import TrainingData, split
from bench.training.mix import LoadedBases, MixSettings, with_fast_bases
from bench.training.mix_answers import MixNumbers
from bench.training.mix_search import choose
from bench.training.recipe import Conditions, Trained, register_recipe


class FixedMixSettings(MixSettings):
    """The settings of the choice of a fixed weight."""

    alpha_step: float = Field(default=0.01, gt=0, le=1)
    """Distance of the weights to choose from: 1, 1 - alpha_step, ..., 0."""


def train(settings: FixedMixSettings, data: TrainingData, conditions: Conditions) -> Trained:
    """Choose the numbers of a fixed mix on held-out training images; see ``Recipe.train``.

    What the attacks have found is kept, so that an interrupted choice can be resumed.
    """
    _, held_out = split(len(data.labels), settings.held_out, conditions.seed)
    bases = LoadedBases(settings, data.name)
    seen = bases.images_seen(data, settings.held_out, conditions.seed)
    images, labels = (each[held_out].to(conditions.device) for each in (data.images, data.labels))
    mix = Mix(bases.accurate, bases.robust, 0.5).to(conditions.device).eval()
    fast = with_fast_bases(mix, images[:8])
    choice = choose(
        lambda numbers: Mix(fast.accurate, fast.robust, **numbers),
        {"alpha": 0.5, "accurate_scale": 1.0, "robust_scale": 1.0},
        number_grid(settings),
        images,
        labels,
        bases.threat_model,
        settings,
        conditions,
    )
    return Trained(
        network=None,
        architecture="bench.candidates.mix:Mix",
        architecture_args=dict(choice.numbers),
        seconds=choice.seconds,
        started=choice.started,
        bases=bases.names,
        record={"bases_sha256": bases.sha256, "held_out_images_seen": seen}
        | choice.record(len(images)),
    )


def number_grid(settings: FixedMixSettings) -> list[MixNumbers]:
    """Return every combination of weight and scales that the settings allow."""
    weights = [
        round(1 - settings.alpha_step * step, 6) for step in range(int(1 / settings.alpha_step) + 1)
    ]
    return [
        {"alpha": max(alpha, 0.0), "accurate_scale": accurate, "robust_scale": robust}
        for alpha, accurate, robust in product(
            weights, settings.accurate_scales, settings.robust_scales
        )
    ]


register_recipe(
    "fixed-mix",
    "no training: the weight of a fixed mix, chosen on held-out training images",
    FixedMixSettings,
    train,
)
