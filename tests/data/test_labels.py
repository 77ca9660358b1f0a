"""Labels that are no classes."""

from __future__ import annotations

import numpy as np
import pytest

from bench.data.class_names import MOST_CLASSES
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
