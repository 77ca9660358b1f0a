"""Smallest known perturbations: consistent with the attacks, confirmed, the same in any batch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import bench
from bench.attacks import inside, least_radii, tolerance
from bench.engines import AttackTask, smallest
from bench.engines.express import ExpressEngine
from bench.engines.fast import FastEngine
from bench.errors import InputError
from bench.store.records import AttackBlock
from bench.store.tables import Tables, smallest_records
from tests.engines.test_express import task_for
from tests.flags import defences


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smallest, "STEPS", 20)
    monkeypatch.setattr(smallest, "TARGETS", 1)


def _task(module: nn.Module) -> AttackTask:
    return replace(task_for(module), eps_curve=True)


def _blocks(task: AttackTask, finished: dict[str, AttackBlock] | None = None) -> list[AttackBlock]:
    return list(FastEngine().run(task, finished or {}, lambda _: None))


def _table(blocks: list[AttackBlock]) -> pd.DataFrame:
    table, _ = smallest_records(blocks)
    assert table is not None
    return table.drop(columns="seconds")


def test_smallest_perturbations_agree_with_the_attacks_and_fool_the_candidate() -> None:
    module = defences.base()
    task = _task(module)
    norm, eps = task.threat_model.norm, task.threat_model.eps
    blocks = _blocks(task)
    table, images = smallest_records(blocks)
    assert table is not None
    assert images is not None
    assert table["index"].tolist() == task.indices.tolist()
    with torch.no_grad():
        right = module(task.images).argmax(dim=1) == task.labels
    assert ((table["radius"] == 0).to_numpy() == ~right.numpy()).all()
    # What the run counts as broken is what the curve counts as broken at its radius.
    found = [block.witnesses for block in blocks if block.witnesses is not None]
    broken = set(np.concatenate([each.index for each in found]).tolist())
    at_eps = table.loc[(table["radius"] <= eps) & right.numpy(), "index"]
    assert broken == set(at_eps.tolist())
    assert 0 < len(broken) < int(right.sum())
    # Each image fools the candidate, at the radius that is recorded; no witness is nearer.
    radius = table.set_index("index")["radius"]
    adversarial = torch.from_numpy(images.images)
    place = {index: row for row, index in enumerate(task.indices.tolist())}
    rows = torch.tensor([place[index] for index in images.index.tolist()])
    with torch.no_grad():
        assert (module(adversarial).argmax(dim=1) != task.labels[rows]).all()
    measured = least_radii(adversarial, task.images[rows], norm).numpy()
    recorded = radius.loc[images.index].to_numpy()
    assert np.allclose(measured, recorded, rtol=1e-6)
    for each in found:
        rows = torch.tensor([place[index] for index in each.index.tolist()])
        theirs = least_radii(torch.from_numpy(each.images), task.images[rows], norm).numpy()
        assert (radius.loc[each.index].to_numpy() <= theirs + 1e-12).all()


def test_neither_batches_nor_an_interruption_change_a_radius() -> None:
    class RowByRow(nn.Module):
        """Without matrix products, whose sums depend on a batch's shape."""

        def __init__(self) -> None:
            super().__init__()
            generator = torch.Generator().manual_seed(3)
            images = defences.samples().images.flatten(1)
            labels = defences.samples().labels
            means = torch.stack([images[labels == each].mean(dim=0) for each in range(10)])
            self.register_buffer(
                "means", means + 0.01 * torch.rand(means.shape, generator=generator)
            )

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return -((images.flatten(1).unsqueeze(1) - self.means) ** 2).sum(dim=2)

    task = _task(RowByRow()).part(slice(0, 16))
    expected = _blocks(task)
    in_small_batches = _blocks(replace(task, batch_size=6))
    pd.testing.assert_frame_equal(_table(in_small_batches), _table(expected))
    curve = [block for block in in_small_batches if smallest.EPS_CURVE in block.key]
    assert len(curve) > 2
    kept = {block.key: block for block in in_small_batches if block not in curve[1:]}
    resumed = _blocks(replace(task, batch_size=6), kept)
    pd.testing.assert_frame_equal(_table([*kept.values(), *resumed]), _table(expected))


def test_a_candidate_without_a_gradient_keeps_what_its_attacks_found() -> None:
    class Steps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.base = defences.base()

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                return self.base((images * 16).round() / 16)

    task = _task(Steps())
    blocks = _blocks(task)
    table = _table(blocks)
    found = [block.witnesses for block in blocks if block.witnesses is not None]
    known = set(np.concatenate([each.index for each in found]).tolist()) if found else set()
    unknown = table.loc[np.isinf(table["radius"]), "index"].tolist()
    assert unknown
    assert not known & set(unknown)
    assert table.loc[np.isinf(table["radius"]), "attack"].isna().all()
    assert any("no gradient" in str(block.record.get(smallest.EPS_CURVE)) for block in blocks)


def test_express_may_end_with_it() -> None:
    task = _task(defences.base())
    blocks = list(ExpressEngine().run(task, {}, lambda _: None))
    assert len(_table(blocks)) == len(task.labels)


def test_an_image_is_inside_its_least_radius_and_of_no_smaller_one() -> None:
    generator = torch.Generator().manual_seed(0)
    clean = torch.rand(20, 3, 4, 4, generator=generator)
    images = (clean + 0.1 * torch.randn(clean.shape, generator=generator)).clamp(0, 1)
    for norm in ("Linf", "L2"):
        radii = least_radii(images, clean, norm)  # type: ignore[arg-type]
        for row, radius in enumerate(radii.tolist()):
            one = images[row : row + 1], clean[row : row + 1], norm
            assert inside(*one, radius * (1 + 1e-12))  # type: ignore[arg-type]
            assert not inside(*one, radius * (1 - 1e-9))  # type: ignore[arg-type]
        assert least_radii(clean, clean, norm).max() == 0  # type: ignore[arg-type]
        assert tolerance(norm, 0.1, 48) > 0  # type: ignore[arg-type]


def _evaluate(tmp_path: Path, **options: object) -> bench.Evaluation:
    samples = defences.samples()
    settings = {"eps_curve": True, "name": "base", "progress": False, "protocol": "express"}
    return bench.evaluate(
        defences.base(),
        images=samples.images,
        labels=samples.labels,
        threat_model=bench.Linf(defences.EPS),
        results_dir=tmp_path,
        **(settings | options),  # type: ignore[arg-type]
    )


def test_a_run_has_its_curve_and_verification_checks_it(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    result = _evaluate(tmp_path)
    curve = result.eps_curve
    assert curve["eps"].is_monotonic_increasing
    assert curve["robust_accuracy"].is_monotonic_decreasing
    assert curve["robust_accuracy"].iloc[0] == pytest.approx(result.clean_accuracy)
    at_eps = curve.loc[curve["eps"] <= defences.EPS, "robust_accuracy"].iloc[-1]
    assert at_eps == pytest.approx(result.robust_accuracy)
    assert (curve["low"] <= curve["robust_accuracy"]).all()
    assert (curve["high"] >= curve["robust_accuracy"]).all()
    axes = result.plot_eps_curve()
    assert axes.get_lines()
    images, indices = result.smallest_images()
    assert len(images) == len(indices) == (result.smallest["radius"] > 0).sum()
    assert result.verify().is_confirmed

    saved = bench.Evaluation.load(result.save(tmp_path / "run.zip"))
    pd.testing.assert_frame_equal(saved.smallest, result.smallest)

    # A forger makes one perturbation smaller than its image shows.
    dataset = result.dataset()
    clean = dataset.images.numpy()
    tables = result.folder.tables(clean, dataset.indices.tolist())
    forged = result.smallest
    last = forged["radius"].idxmax()
    forged.loc[last, "radius"] *= 0.99

    def centres(witnesses: object) -> np.ndarray:
        return clean[np.searchsorted(dataset.indices.numpy(), witnesses.index)]  # type: ignore[attr-defined]

    assert tables.witnesses is not None
    result.folder.finish(
        Tables(**(vars(tables) | {"smallest": forged})),
        result.summary,
        centres(tables.witnesses),
        centres(tables.smallest_images),
    )
    (failure,) = result.verify().failures
    assert f"sample {forged.loc[last, 'index']}, smallest perturbation" in failure


def test_other_runs_have_none_and_other_engines_refuse(tmp_path: Path) -> None:
    plain = _evaluate(tmp_path, eps_curve=False)
    with pytest.raises(InputError, match="looked for the smallest"):
        _ = plain.eps_curve
    with pytest.raises(InputError, match="eps_curve cannot be used"):
        _evaluate(tmp_path, engine="reference", protocol="standard")
