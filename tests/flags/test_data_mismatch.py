"""Data that do not fit the network: the message says so, and how to go on."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import binom

from bench import flags
from bench.errors import InputError
from bench.flags.chance import CHANCE
from bench.flags.data_mismatch import check_class_count, other_images
from bench.suites import DataSource

NPZ, FOLDER = (
    DataSource.model_validate({"npz": "own.npz"}),
    DataSource.model_validate({"folder": "p"}),
)


@pytest.mark.parametrize(
    ("source", "classes", "outputs", "expected"),
    [
        (NPZ, 7, 10, r"own shows 7 classes, the network has 10 outputs; .*`classes: 10`"),
        (FOLDER, 7, 10, "p shows 7 classes.* beside `folder` in the suite"),
        (NPZ, 11, 10, "leave out .*labels begin with 0"),
        (FOLDER.model_copy(update={"classes": ("a", "b")}), 2, 3, "p names 2 .*name all 3 classes"),
        (
            DataSource(name="cifar10"),
            10,
            100,
            "cifar10 has 10 classes.*candidate for this data set",
        ),
    ],
)
def test_another_number_of_classes(
    source: DataSource, classes: int, outputs: int, expected: str
) -> None:
    logits = torch.zeros(24, outputs)
    with pytest.raises(InputError, match=rf"shape \(24, {classes}\), got .*{expected}"):
        check_class_count("it", logits, classes, source)
    check_class_count("it", torch.zeros(24, classes), classes, source)


def test_another_number_of_channels() -> None:
    images = torch.zeros(2, 3, 4, 4)
    assert "write `channels: 1`" in other_images(images, FOLDER)
    assert "`layout: NHWC`" in other_images(images, NPZ)
    assert other_images(images, DataSource(name="digits")) == ""


@pytest.mark.parametrize("classes", [2, 10, 100, 1000])
def test_chance_level_is_said_of_guessing_and_never_of_a_good_classifier(classes: int) -> None:
    """Of both kinds of classifiers by the exact probabilities of their counts."""
    said_once = False
    for n in (5, 20, 30, 100, 1000):
        raised = [flags.chance_level(correct, n, classes) is not None for correct in range(n + 1)]
        good = binom.pmf(range(n + 1), n, (1 + 1 / classes) / 2)
        assert sum(good[correct] for correct in range(n + 1) if raised[correct]) <= CHANCE
        if any(raised):
            said_once = True
            guessing = binom.pmf(range(n + 1), n, 1 / classes)
            assert sum(guessing[correct] for correct in range(n + 1) if raised[correct]) > 0.98
    assert said_once
