"""A new recipe: one file, its presets as YAML, through public interfaces only.

Mixup training: H. Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from bench.candidates.submission import read_submission
from bench.cli import main
from bench.errors import InputError
from bench.training import (
    Conditions,
    Measurement,
    OneCycleSettings,
    Trained,
    TrainingData,
    clean_accuracy,
    logits,
    register_presets,
    register_recipe,
    run,
    sgd_in_one_cycle,
    train_network,
)

PRESETS = """
recipes:
  mixup:
    paper: {title: "mixup: Beyond Empirical Risk Minimization", venue: ICLR 2018}
    presets:
      digits-mixup:
        dataset: digits
        settings:
          architecture: bench.candidates.architectures:digits_network
          architecture_args: {widths: [4]}
          epochs: 2
          held_out: 100
          largest_share: 0.5
"""

OTHER = PRESETS.replace("digits-mixup", "digits-other")


class MixupSettings(OneCycleSettings):
    """The settings of mixup training."""

    largest_share: float = Field(default=0.5, ge=0, le=1)
    """The largest share of another image."""


def train(settings: MixupSettings, data: TrainingData, conditions: Conditions) -> Trained:
    """Train a network on convex combinations of images."""

    def batch_loss(
        network: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator, epoch: int
    ) -> Tensor:
        share = settings.largest_share * float(torch.rand((), generator=generator))
        scores = logits(network, torch.lerp(images, images.flip(0), share), settings.precision)
        own, others = (functional.cross_entropy(scores, each) for each in (labels, labels.flip(0)))
        return torch.lerp(own, others, share)

    def measure(epoch: int, network: nn.Module, images: Tensor, labels: Tensor) -> Measurement:
        return Measurement(epoch, clean_accuracy(network, images, labels, settings.precision))

    return train_network(
        settings,
        data,
        conditions,
        lambda network: sgd_in_one_cycle(network, settings),
        batch_loss,
        measure,
    )


@pytest.fixture(scope="module", autouse=True)
def registered(tmp_path_factory: pytest.TempPathFactory) -> None:
    presets = tmp_path_factory.mktemp("presets") / "mixup.yaml"
    presets.write_text(PRESETS)
    register_recipe("mixup", "convex combinations of images", MixupSettings, train)
    register_presets(presets)


def test_a_recipe_from_outside_trains_a_submission(tmp_path: Path) -> None:
    written = run("mixup", "digits-mixup", None, tmp_path / "library", 3)
    assert written.training["settings"]["largest_share"] == 0.5
    command = ["train", "--recipe", "mixup", "--dataset", "digits", "--seed", "3"]
    result = CliRunner().invoke(main, [*command, "--out", str(tmp_path / "command")])
    assert result.exit_code == 0, result.output
    assert read_submission(tmp_path / "command").sha256 == written.sha256


def test_a_name_that_is_taken_is_refused() -> None:
    with pytest.raises(InputError, match="expected a new name for a recipe, got 'mixup'"):
        register_recipe("mixup", "another", MixupSettings, train)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("recipes: [", "not a YAML file"),
        (PRESETS, "expected a new name for a preset, got 'digits-mixup'"),
        (
            PRESETS.replace("mixup:\n", "mixdown:\n", 1),
            "expected a registered recipe .*got 'mixdown'",
        ),
        (OTHER.replace("largest_share", "share"), "preset digits-other: field share: unknown"),
        (OTHER.replace("0.5", "2"), "preset digits-other: field largest_share"),
        (PRESETS.replace("dataset", "data"), "field recipes.mixup.presets.digits-mixup.dataset"),
    ],
)
def test_wrong_presets_are_named(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "presets.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        register_presets(path)
