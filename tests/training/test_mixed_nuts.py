"""MixedNUTS as a recipe: the choice of the transformation and of the weight."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import bench.training
from bench.candidates.mixed_nuts import MixedNuts, MixedNutsSurrogate
from bench.candidates.registry import find_candidates
from bench.errors import InputError
from bench.suites.suite import load_suite
from bench.training import override
from bench.training.recipes.mixed_nuts import (
    MixedNutsSettings,
    choose,
    cutoff,
    kept_share,
    leads,
    mixed_classes,
    transformations,
)

TINY: dict[str, Any] = {"held_out": 60, "steps": 3, "targets": 1, "values": 2}


def settings_with(**changes: Any) -> MixedNutsSettings:
    preset = bench.training.presets()["digits-mixed-nuts"].settings
    chosen = override(preset, TINY | changes)
    assert isinstance(chosen, MixedNutsSettings)
    return chosen


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=40),
    st.floats(0.01, 0.99),
)
def test_the_cutoff_is_the_highest_that_keeps_the_share(found: list[float], kept: float) -> None:
    values = torch.tensor(found, dtype=torch.float64)
    chosen = cutoff(values, kept)
    assert float((values >= chosen).double().mean()) >= kept - 1e-9
    above = values[values > chosen]
    assert len(above) == 0 or len(above) / len(values) < kept + 1e-9


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_choice_is_the_best_of_all_by_the_mix_itself(seed: int) -> None:
    settings = settings_with(values=3, kept=0.9, scales=[0.05, 1], powers=[1, 2], biases=[-0.5, 0])
    generator = torch.Generator().manual_seed(seed)
    attacked = torch.randn(2, 40, 5, generator=generator)
    attacked[..., 0] += 1.5
    attacked = attacked[:, (attacked.argmax(dim=-1) == 0).all(dim=0)]
    labels = torch.zeros(attacked.shape[1], dtype=torch.int64)
    wrong = torch.randn(50, 5, generator=generator)
    wrong_labels = wrong.argmin(dim=1)
    chosen, tried = choose(settings, attacked, labels, wrong, wrong_labels)
    assert tried == len(transformations(settings)) == 27

    def overruled(scale: float, power: float, bias: float) -> float:
        """Return how often the robust base's wrong answer is the mix's, asking the mix."""
        numbers = {"scale": scale, "power": power, "bias": bias, "surrogate_alpha": 0.5}
        neutral = MixedNuts(nn.Identity(), nn.Identity(), alpha=1, **numbers)
        lowest = cutoff(
            leads(
                neutral.transform(attacked.double().flatten(0, 1)).reshape(attacked.shape), labels
            ),
            settings.kept,
        )
        mix = MixedNuts(nn.Identity(), nn.Identity(), alpha=1 / (1 + lowest), **numbers)
        # The accurate base answers the second class of the robust base, which is hardest to rule.
        second = wrong.topk(2, dim=1).indices[:, 1]
        of_accurate = nn.functional.one_hot(second, 5).double()
        assert kept_share(mix, attacked, labels) >= settings.kept
        answers = mixed_classes(mix, of_accurate, wrong.double())
        return float((answers == wrong.argmax(dim=1)).double().mean())

    least = min(overruled(*each) for each in transformations(settings))
    assert overruled(chosen.scale, chosen.power, chosen.bias) == pytest.approx(least)
    assert chosen.wrong == pytest.approx(least)


def test_a_chosen_mix_is_a_submission_with_a_surrogate(tmp_path: Path) -> None:
    out = tmp_path / "chosen"
    written = bench.training.run("mixed-nuts", "digits-mixed-nuts", None, out, 0, TINY)
    assert [path.name for path in out.iterdir()] == ["submission.yaml"]
    assert written.architecture_args["alpha"] >= 0.5
    (reference,) = find_candidates([str(out)], load_suite("digits-linf"))
    candidate = reference.load()
    assert isinstance(candidate.module, MixedNuts)
    assert isinstance(candidate.surrogate, MixedNutsSurrogate)


def test_ranges_and_too_few_images_are_refused(tmp_path: Path) -> None:
    for changes, message in (
        ({"powers": [0.5, 2]}, "setting powers: expected the lowest value and the highest"),
        ({"scales": [2, 1]}, "setting scales"),
        ({"held_out": 1}, "raise held_out"),
    ):
        with pytest.raises(InputError, match=message):
            bench.training.run(
                "mixed-nuts", "digits-mixed-nuts", None, tmp_path / "out", 0, TINY | changes
            )
