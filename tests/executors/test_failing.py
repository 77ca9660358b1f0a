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


class FailsOnMark(nn.Module):
    """Raises an error on images whose first column is bright and whose last one is dark."""

    def __init__(self, inner: nn.Module, fails: bool) -> None:
        super().__init__()
        self.inner = inner
        self.fails = fails

    def forward(self, images: Tensor) -> Tensor:
        contrast = (images[..., 0] - images[..., -1]).flatten(1).mean(dim=1)
        if self.fails and bool((contrast > 0.6).any()):
            raise ZeroDivisionError("too bright")
        logits: Tensor = self.inner(images)
        return logits


@pytest.mark.parametrize("kind", ["certification", "sweep"])
@pytest.mark.parametrize("workers", [1, 2])
def test_the_sample_is_recorded_and_others_are_as_ever(
    kind: str, workers: int, tmp_path: Path
) -> None:
    plan = planned(kind, tmp_path, samples=10).plan
    made = runnable_kind(plan.manifest.kind)

    images = plan.task.images.clone()
    images[FAILING][..., 0] = 1.0

    def task(fails: bool) -> Any:
        if isinstance(plan.task.module, Mix):
            mix = copy.deepcopy(plan.task.module)
            mix.robust = FailsOnMark(mix.robust, fails)
            return replace(plan.task, module=mix, images=images)
        module = FailsOnMark(plan.task.module, fails).eval()
        return replace(plan.task, module=module, images=images)

    expected = made.join(list(plan.engine.run(task(False), {}, lambda _: None))).samples
    machine = ThisMachine(workers)
    blocks = list(plan.engine.run(task(True), {}, lambda _: None, machine))
    machine.close()
    found = made.join(blocks).samples
    of_it, others = found[found["index"] == FAILING], found[found["index"] != FAILING]
    name = "prediction" if kind == "certification" else "clean_prediction"
    assert (of_it[name] == -1).all()
    assert "too bright" in str(join_records(blocks)[f"failed on sample {FAILING}"])
    columns = [each for each in found if each != "witness"]
    same = expected[expected["index"] != FAILING][columns].reset_index(drop=True)
    # Batches have other shapes once the samples are halved; rounding may turn a vote or two.
    pd.testing.assert_frame_equal(
        others[columns].reset_index(drop=True), same, check_dtype=False, rtol=0.02, atol=1e-4
    )
    if kind == "sweep":
        attempts = made.join(blocks).attempts
        assert set(attempts.loc[attempts["index"] == FAILING, "outcome"]) == {"failed"}
