"""torchvision's data sets: modes, sizes and labels of all kinds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets

from bench import data
from bench.errors import InputError
from bench.suites import DataSource

GREY = Image.new("L", (4, 4), 200)
COLOUR = Image.new("RGB", (4, 4), (255, 0, 0))


def _load(
    monkeypatch: pytest.MonkeyPatch, pairs: list[tuple[Any, Any]], **fields: Any
) -> data.Dataset:
    class Own(datasets.VisionDataset):
        def __init__(self, root: str, names: list[Any] | None = None) -> None:
            super().__init__(root)
            self.classes = names

        def __len__(self) -> int:
            return len(pairs)

        def __getitem__(self, index: int) -> tuple[Any, Any]:
            return pairs[index]

    monkeypatch.setattr(datasets, "Own", Own, raising=False)
    return data.load_source(DataSource(torchvision="Own", **fields), Path("/nowhere"))


@pytest.mark.parametrize(
    "labels",
    [
        [1, 0],
        [np.int64(1), np.int64(0)],
        [torch.tensor(1), torch.tensor(0)],
        [1.0, 0.0],
        [torch.tensor([0, 1]), torch.tensor([1, 0])],
        [[1], [0]],
    ],
)
def test_labels_of_many_kinds(monkeypatch: pytest.MonkeyPatch, labels: list[Any]) -> None:
    dataset = _load(monkeypatch, [(GREY, labels[0]), (GREY, labels[1])])
    assert dataset.labels.tolist() == [1, 0]
    assert dataset.classes == ("0", "1")
    assert dataset.images.shape == (2, 1, 4, 4)


def test_names_channels_and_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = [(GREY, 0), (COLOUR, 1)]
    names = {"names": ["cat", ["dog", "hound"]]}
    mixed = _load(monkeypatch, pairs, arguments=names)
    assert mixed.images.shape == (2, 3, 4, 4)
    assert mixed.classes == ("cat", "dog, hound")
    grey = _load(monkeypatch, pairs, channels=1)
    assert grey.images.shape == (2, 1, 4, 4)
    assert "colours are converted to grey" in grey.notices[0]
    mapped = _load(monkeypatch, pairs, arguments={"names": ["cat", "dog"]}, classes=["dog", "cat"])
    assert mapped.labels.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([(GREY, 0), (Image.new("L", (5, 4)), 1)], r"shape \(1, 4, 5\) for image 1"),
        ([(GREY, 0), (GREY, (1, GREY))], "a label of type tuple for image 1"),
        ([(GREY, 0), (GREY, None)], "a label of type NoneType for image 1"),
        ([(GREY, 0), (GREY, {"a": 1})], "a label of type dict for image 1"),
        ([(GREY, torch.zeros(5)), (GREY, torch.ones(5))], "no single 1 among 0s"),
        ([(GREY, 0), (torch.zeros(3, 4, 4), 1)], "expected a PIL image, got Tensor for image 1"),
        ([(GREY, -1)], "integers >= 0, got -1"),
        ([], "at least one image"),
        ([(GREY, 0, 0)], "expected an image and a label, got ValueError for image 0"),
    ],
)
def test_other_samples_are_named(
    monkeypatch: pytest.MonkeyPatch, pairs: list[Any], expected: str
) -> None:
    with pytest.raises(InputError, match=rf"torchvision\.datasets\.Own: .*{expected}"):
        _load(monkeypatch, pairs)
