"""Sweeps: what is found at one weight is used at all; a resumed sweep ends as if left alone."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from bench import data
from bench.attacks import inside
from bench.candidates.mix import Mix
from bench.engines import AttackTask
from bench.engines.sweep import NEIGHBOURS, SweepEngine
from bench.errors import InputError
from bench.executors.progress import Progress
from bench.runs.sweep import Sweep
from bench.store import RunFolder
from bench.store.records import SweepBlock
from bench.store.tables import Tables
from bench.suites import ThreatModel
from bench.suites.suite import AttackChoice
from tests.pages.runs import make_manifest

ALPHAS = (0.0, 0.4, 0.6, 0.8, 1.0)
ATTACKS = (
    AttackChoice(name="apgd-ce", parameters={"steps": 4}),
    AttackChoice(name="apgd-t", parameters={"steps": 3, "targets": 2}),
)
N = 40


@pytest.fixture(scope="module")
def mix(linear_digits: nn.Module) -> Mix:
    """Linear digits, steep and noisy beside flat: neither base is right on all images."""
    noisy = copy.deepcopy(linear_digits)
    with torch.no_grad():
        draws = torch.Generator().manual_seed(0)
        noisy[1].weight.add_(2 * torch.randn(10, 64, generator=draws))
    return Mix(noisy, linear_digits, 0.5, accurate_scale=2.0, robust_scale=0.5).eval()


def task_of(module: nn.Module, norm: str = "Linf", eps: float = 0.06) -> AttackTask:
    samples = data.load("digits").first(N)
    return AttackTask(
        module=module,
        images=samples.images,
        labels=samples.labels,
        indices=samples.indices,
        classes=10,
        threat_model=ThreatModel.model_validate({"norm": norm, "eps": eps}),
        attacks=ATTACKS,
        seed=3,
        batch_size=16,
        device=torch.device("cpu"),
    )


def swept(task: AttackTask, finished: dict[str, SweepBlock] | None = None) -> list[SweepBlock]:
    return list(SweepEngine(ALPHAS).run(task, finished or {}, lambda _: None))


def robust(tables: Tables) -> np.ndarray:
    """(weights, samples) bool."""
    table: np.ndarray = tables.samples["robust"].to_numpy(bool).reshape(len(ALPHAS), N)
    return table


@pytest.mark.parametrize(("norm", "eps"), [("Linf", 0.06), ("L2", 0.25)])
def test_every_broken_sample_has_a_witness_at_its_weight(mix: Mix, norm: str, eps: float) -> None:
    task = task_of(mix, norm, eps)
    tables = Sweep().join(swept(task))
    samples, witnesses = tables.samples, tables.witnesses
    assert witnesses is not None
    images = torch.from_numpy(witnesses.images)
    assert inside(images, task.images[witnesses.index], norm, eps).all()
    for alpha, rows in samples.groupby("alpha"):
        at = mix.at_alpha(float(alpha)).eval()
        with torch.no_grad():
            clean = at(task.images).argmax(dim=1).numpy()
            says = at(images).argmax(dim=1).numpy()
        assert (rows["clean_prediction"].to_numpy() == clean).all()
        broken = rows[rows["broken_by"].notna()]
        place = broken["witness"].to_numpy(int)
        assert (witnesses.index[place] == broken["index"].to_numpy()).all()
        assert (says[place] == broken["adversarial_prediction"].to_numpy(int)).all()
        assert (says[place] != broken["label"].to_numpy()).all()
        # No image that is known breaks what is called robust.
        wrong = set(witnesses.index[says != task.labels[witnesses.index].numpy()].tolist())
        assert not wrong & set(rows.loc[rows["robust"], "index"])
    assert (samples["broken_by"] == NEIGHBOURS).any()
    share = robust(tables).mean(axis=1)
    assert share[0] < share[-1]


def test_progress_ends_with_the_accuracy_at_the_best_weight(mix: Mix) -> None:
    seen: list[Progress] = []
    blocks = list(SweepEngine(ALPHAS).run(task_of(mix), {}, seen.append))
    best = int(robust(Sweep().join(blocks)).sum(axis=1).max())
    assert (seen[-1].done, seen[-1].robust) == (N, best)
    assert best < N


def test_an_interrupted_sweep_ends_as_if_left_alone(mix: Mix, tmp_path: Path) -> None:
    task = task_of(mix)
    alone = swept(task)
    for kept in (1, 3, len(ALPHAS)):
        folder = RunFolder(tmp_path / str(kept))
        folder.path.mkdir()
        folder.begin(make_manifest("digits-linf", "mix", len(task.labels), kind="sweep"))
        for block in alone[:kept]:
            folder.append(block)
        finished, damaged = folder.blocks()
        assert not damaged
        rest = swept(task, finished)
        assert [block.key for block in rest] == [block.key for block in alone[kept:]]
        resumed = Sweep().join([*finished.values(), *rest])
        left = Sweep().join(alone)
        assert resumed.samples.equals(left.samples)
        assert resumed.witnesses is not None
        assert left.witnesses is not None
        assert (resumed.witnesses.images == left.witnesses.images).all()


def test_batches_change_nothing(mix: Mix) -> None:
    task = task_of(mix)
    one = Sweep().join(swept(task))
    task.__dict__["batch_size"] = 7
    assert (robust(Sweep().join(swept(task))) == robust(one)).all()


def test_only_fixed_mixes_with_a_gradient_are_swept(linear_digits: nn.Module) -> None:
    with pytest.raises(InputError, match="expected a fixed mix"):
        swept(task_of(linear_digits))

    class Rounded(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return linear_digits(images).detach()

    with pytest.raises(InputError, match="expected bases with a gradient"):
        swept(task_of(Mix(Rounded(), Rounded(), 0.5).eval()))
