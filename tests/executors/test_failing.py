"""A candidate that raises an error on one sample: every kind of run records it and goes on."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from torch import Tensor, nn

from bench.candidates.mix import Mix
from bench.executors.here import ThisMachine
from bench.runs.kind import join_records, runnable_kind
from tests.executors.runs import planned

FAILING = 5
NEAR = 0.1
"""Mean squared distance: noise of 0.25 is nearer to its own image, and other images are farther."""


class FailsNear(nn.Module):
    """Raises an error on images near one, noisy ones too."""

    def __init__(self, inner: nn.Module, image: Tensor) -> None:
        super().__init__()
        self.inner = inner
        self.image = image

    def forward(self, images: Tensor) -> Tensor:
        if bool(((images - self.image).flatten(1).pow(2).mean(1) < NEAR).any()):
            raise ZeroDivisionError("too near")
        logits: Tensor = self.inner(images)
        return logits


@pytest.mark.parametrize("kind", ["certification", "sweep"])
@pytest.mark.parametrize("workers", [1, 2])
def test_the_sample_is_recorded_and_others_are_as_ever(
    kind: str, workers: int, tmp_path: Path
) -> None:
    plan = planned(kind, tmp_path, samples=10).plan
    made = runnable_kind(plan.manifest.kind)

    def with_failure_at(image: Tensor) -> Any:
        if isinstance(plan.task.module, Mix):
            mix = copy.deepcopy(plan.task.module)
            mix.robust = FailsNear(mix.robust, image)
            return replace(plan.task, module=mix)
        return replace(plan.task, module=FailsNear(plan.task.module, image).eval())

    image = plan.task.images[FAILING]
    nowhere = with_failure_at(image + 10)
    expected = made.join(list(plan.engine.run(nowhere, {}, lambda _: None))).samples
    machine = ThisMachine(workers)
    blocks = list(plan.engine.run(with_failure_at(image), {}, lambda _: None, machine))
    machine.close()
    found = made.join(blocks).samples
    of_it, others = found[found["index"] == FAILING], found[found["index"] != FAILING]
    name = "prediction" if kind == "certification" else "clean_prediction"
    assert (of_it[name] == -1).all()
    assert "too near" in str(join_records(blocks)[f"failed on sample {FAILING}"])
    columns = [each for each in found if each != "witness"]
    same = expected[expected["index"] != FAILING][columns].reset_index(drop=True)
    # Batches have other shapes once the samples are halved; rounding may turn a vote or two.
    pd.testing.assert_frame_equal(
        others[columns].reset_index(drop=True), same, check_dtype=False, rtol=0.02, atol=1e-4
    )
    if kind == "sweep":
        attempts = made.join(blocks).attempts
        assert set(attempts.loc[attempts["index"] == FAILING, "outcome"]) == {"failed"}
