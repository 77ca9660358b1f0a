"""Labels that are no classes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bench.data.class_names import MOST_CLASSES
from bench.data.in_hand import dataset_in_hand
from bench.data.labels import class_names, resolve
from bench.data.source import DataSource
from bench.errors import InputError
from bench.validation import validate


def test_ids_are_not_made_into_classes_by_the_billion() -> None:
    with pytest.raises(InputError, match=r"^own\.npz: expected at most 1,000,000 classes, got"):
        resolve(np.array([0, 10**12]), None, None, "own.npz")
    with pytest.raises(InputError, match=r"^own\.npz: expected at most 1,000,000 classes, got"):
        class_names(np.array(MOST_CLASSES + 1), "own.npz")
    with pytest.raises(InputError, match="field classes: expected at most 1,000,000 classes, got"):
        validate(DataSource, {"folder": "images", "classes": 10**12}, "own.yaml")


@pytest.mark.parametrize("label", [1e30, np.uint64(2**63 + 1)])
def test_numbers_beyond_any_class_do_not_become_negative(label: float | np.uint64) -> None:
    with pytest.raises(InputError, match=r"numbers of classes, got \d{19,} for image 1; are the"):
        resolve(np.array([0, label], np.asarray(label).dtype), None, ("a", "b"), "own.npz")


def test_one_hot_labels_have_a_column_for_each_named_class() -> None:
    rows = np.eye(10)[[0, 2, 1]]
    with pytest.raises(InputError, match=r"expected one-hot labels with 3 columns, .* got 10"):
        resolve(rows, None, ("a", "b", "c"), "own.npz")
    labels, _ = resolve(rows[:, :3], None, ("a", "b", "c"), "own.npz")
    assert labels.tolist() == [0, 2, 1]


@pytest.mark.parametrize("classes", [["a", "a", "b"], [], 0, "ab"])
def test_classes_of_images_in_hand_are_checked_as_those_of_a_file(classes: Any) -> None:
    images = np.zeros((2, 1, 4, 4))
    with pytest.raises(InputError, match=r"^images: .*`classes`"):
        dataset_in_hand(images, [0, 1], classes)
    assert dataset_in_hand(images, [0, 1], 3).classes == ("0", "1", "2")
