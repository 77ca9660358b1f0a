"""The call that a run's card shows makes the same run."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from torch import nn

import bench
from bench import data
from bench.api.call import call_of

DIGITS = data.load("digits").first(6)
IN_PYTHON: dict[str, Any] = {
    "images": DIGITS.images,
    "labels": DIGITS.labels,
    "classes": list("0123456789"),
}


def _evaluated(model: nn.Module, suite: str, **given: Any) -> bench.Evaluation:
    options = {"sample": "random", "sample_seed": 3, "until_width": 58.0, "budget": "30m"}
    return bench.evaluate(model, suite, **options, seed=2, eps=0.02, **given)  # type: ignore[arg-type]


def _every_other(model: nn.Module, suite: str, **given: Any) -> bench.Evaluation:
    return bench.evaluate(model, suite, n_examples=7, every=2, eps_curve=True, **given)


def _declared_random(model: nn.Module, suite: str, **given: Any) -> bench.Evaluation:
    return bench.evaluate(model, suite, n_examples=3, randomized=True, batch_size=2, **given)


def _in_hand(model: nn.Module, suite: str, **given: Any) -> bench.Evaluation:
    return bench.evaluate(model, threat_model=bench.Linf(0.4), eps=0.5, **IN_PYTHON, **given)


def _certified(model: nn.Module, suite: str, **given: Any) -> bench.Evaluation:
    options: dict[str, Any] = {"noise_samples": 200, "procedure": "sequential", "n_examples": 4}
    return bench.certify(model, "digits-l2", sigma=0.1, **options, **given)


def _swept(model: nn.Module, suite: str, **given: Any) -> bench.Evaluation:
    options: dict[str, Any] = {"alphas": [0, 1], "accurate_scale": 2, "steps": 2, "n_examples": 4}
    return bench.sweep(model, model, suite, **options, **given)


@pytest.mark.parametrize(
    ("make", "function"),
    [
        (_evaluated, "evaluate"),
        (_every_other, "evaluate"),
        (_declared_random, "evaluate"),
        (_in_hand, "evaluate"),
        (_certified, "certify"),
        (_swept, "sweep"),
    ],
)
def test_it_makes_the_same_run(
    make: Callable[..., bench.Evaluation],
    function: str,
    linear_digits: nn.Module,
    suite: str,
    results: Path,
) -> None:
    given: dict[str, Any] = {"results_dir": results, "progress": False}
    found = make(linear_digits, suite, **given)
    call = call_of(found)
    assert call.startswith(f"bench.{function}(")
    loaded = bench.load(f"{found.suite}/{found.name}@{found.run}", results_dir=results)
    assert call_of(loaded) == call
    calls = {
        name: functools.partial(getattr(bench, name), **given)
        for name in ("evaluate", "certify", "sweep")
    }
    names = {
        "bench": SimpleNamespace(Linf=bench.Linf, **calls),
        "suite": suite,
        "model": linear_digits,
        "accurate": linear_digits,
        "robust": linear_digits,
        **IN_PYTHON,
    }
    again = eval(call, names)
    assert again.run == found.run
    assert again.reused
