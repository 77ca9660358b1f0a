"""The usual normalization of a data set, by its name: in Python, behind a name, in a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bench
from bench.candidates.registry import find_candidate
from bench.candidates.submission import Submission
from bench.candidates.wrapped import read_outputs
from bench.data import named_dataset
from bench.errors import InputError
from bench.suites import load_suite
from bench.validation import validate

CIFAR10 = named_dataset("cifar10")
IMAGES = torch.linspace(0, 1, 2 * 3 * 2 * 2).view(2, 3, 2, 2)


def _normalized(images: Tensor, mean: Any, std: Any) -> Tensor:
    subtracted, divisor = (torch.tensor(each).view(1, -1, 1, 1) for each in (mean, std))
    return (images - subtracted) / divisor


@pytest.mark.parametrize(
    "given",
    [{"mean": "cifar10"}, {"std": "cifar10"}, {"mean": "cifar10", "std": "cifar10"}],
    ids=["mean", "std", "both"],
)
def test_the_name_of_a_data_set_for_one_stands_for_both(given: dict[str, str]) -> None:
    came = bench.wrap(nn.Flatten(), **given).preprocessed(IMAGES)  # type: ignore[arg-type]
    assert torch.equal(came, _normalized(IMAGES, CIFAR10.mean, CIFAR10.standard_deviation))


def test_numbers_stand_for_themselves() -> None:
    divided = bench.wrap(nn.Flatten(), std=0.5).preprocessed(IMAGES)
    assert torch.equal(divided, IMAGES / 0.5)
    subtracted = bench.wrap(nn.Flatten(), mean="cifar10", std=1).preprocessed(IMAGES)
    assert torch.equal(subtracted, _normalized(IMAGES, CIFAR10.mean, [1.0]))


@pytest.mark.parametrize("name", ["mean", "std"])
def test_a_name_that_is_unknown_is_refused_by_its_argument(name: str) -> None:
    with pytest.raises(InputError, match=rf"^{name}: expected numbers or one of .*got 'cifar'"):
        bench.wrap(nn.Flatten(), **{name: "cifar"})  # type: ignore[arg-type]


def test_behind_a_name_it_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nets_of_wrapped.py").write_text(
        "import torch\n\n\ndef net():\n    torch.manual_seed(0)\n"
        "    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3072, 10))\n"
    )
    monkeypatch.chdir(tmp_path)
    name = "python:nets_of_wrapped:net,mean=cifar10"
    suite = load_suite("cifar10-linf")
    one = find_candidate(name, suite, None, trust_code=True).load()
    both = find_candidate(f"{name},std=cifar10", suite, None, trust_code=True).load()
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(one.module(images), both.module(images))
    assert one.definition_sha256 == both.definition_sha256


def test_in_a_submission_it_is_the_same(write_submission: Callable[..., Path]) -> None:
    suite = load_suite("digits-linf")
    images = torch.rand(2, 1, 8, 8)
    answers = []
    for name, normalize in (
        ("one", {"mean": "digits"}),
        ("two", {"std": "digits"}),
        ("", "digits"),
    ):
        folder = write_submission(f"linear{name}", normalize=normalize)
        answers.append(find_candidate(str(folder), suite).load().module(images))
    assert torch.equal(answers[0], answers[2])
    assert torch.equal(answers[1], answers[2])


@pytest.mark.parametrize("given", [{"mean": [0.5]}, {}])
def test_numbers_for_one_alone_are_refused_in_a_submission(given: dict[str, Any]) -> None:
    content = {"name": "a", "dataset": "digits", "architecture": "model:build", "normalize": given}
    with pytest.raises(
        InputError, match=r"^file: field normalize: expected mean and std, .*; got no (mean and )?"
    ):
        validate(Submission, content, "file")


def test_several_values_for_a_network_of_one_channel_are_refused() -> None:
    grey = bench.wrap(nn.Conv2d(1, 4, 3), mean=[0.1, 0.2, 0.3], std=1.0)
    with pytest.raises(InputError, match=r"^it: mean or std has 3 values, the images 1 channel"):
        read_outputs(grey, (1, 8, 8), name="it")
    colour = bench.wrap(nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 4)), mean=[0.1, 0.2, 0.3])
    assert "the grey channel repeated three times" in read_outputs(colour, (1, 8, 8))[1][0]
