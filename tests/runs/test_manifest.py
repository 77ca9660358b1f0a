"""What decides a run's result, worked out from settings, candidate and data."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from bench import data
from bench.candidates import Candidate
from bench.errors import InputError
from bench.runs.manifest import make_selection, selected_rows
from bench.runs.session import make_plan
from bench.runs.settings import Settings
from bench.store.manifest import Manifest
from bench.suites import load_suite


def _manifest(module: nn.Module, **changes: Any) -> Manifest:
    settings = Settings(load_suite("digits-linf"), **changes)
    samples = data.load("digits")
    samples = samples.take(selected_rows(settings, samples.size))
    return make_plan(Candidate("linear", module, {}, ""), samples, settings).manifest


@pytest.mark.parametrize(
    ("changes", "kind", "overrides"),
    [
        ({}, "all", {}),
        ({"n_examples": 20}, "first", {"n_examples": 20}),
        ({"n_examples": 20, "every": 5}, "every", {"every": 5, "n_examples": 20}),
        (
            {"n_examples": 20, "sample": "random"},
            "random",
            {"n_examples": 20, "sample": "random"},
        ),
        (
            {"sample": "random", "until_width": 3.0},
            "random",
            {"sample": "random", "until_width": 0.03},
        ),
        ({"eps": "4/255"}, "all", {"eps": 4 / 255}),
        ({"seed": 3}, "all", {}),
    ],
)
def test_what_differs_from_the_suite_makes_a_variant(
    linear_digits: nn.Module, changes: dict[str, Any], kind: str, overrides: dict[str, Any]
) -> None:
    manifest = _manifest(linear_digits, **changes)
    assert manifest.selection.kind == kind
    assert manifest.overrides == overrides


def test_what_decides_nothing_is_no_part_of_the_name(linear_digits: nn.Module) -> None:
    run = _manifest(linear_digits).run
    assert _manifest(linear_digits, batch_size=7, flags="full", again=True).run == run
    assert _manifest(linear_digits, seed=1).run != run
    # pyautoattack's draws belong to the batch size.
    reference = [
        _manifest(linear_digits, engine="reference", batch_size=size).run for size in (7, 8)
    ]
    assert reference[0] != reference[1]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"until_width": 3.0}, "add --sample random"),
        ({"budget": "30m"}, "add --sample random"),
        ({"every": 2, "sample": "random"}, "--every cannot be used with"),
    ],
)
def test_selections_that_make_no_sense_are_refused(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        make_selection(Settings(load_suite("digits-linf"), **changes), 360)
