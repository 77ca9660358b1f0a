"""The certification engine: the same certificates whatever the batches and interruptions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from bench import data
from bench.certification.accuracy import summarise
from bench.certification.smoothing import Smoothing
from bench.engines import CertificationTask, certification
from bench.engines.certification import CertificationEngine
from bench.errors import InputError
from bench.executors.progress import Progress
from bench.store.records import CertificationBlock
from bench.suites import ThreatModel


def _task(module: nn.Module, batch_size: int = 256) -> CertificationTask:
    samples = data.load("digits").first(16)
    return CertificationTask(
        module=module,
        images=samples.images,
        labels=samples.labels,
        indices=samples.indices,
        classes=10,
        threat_model=ThreatModel(norm="L2", eps=0.25),
        seed=5,
        batch_size=batch_size,
        device=torch.device("cpu"),
        smoothing=Smoothing(0.15, 20, 300),
    )


def _run(
    task: CertificationTask, procedure: str, finished: dict[str, CertificationBlock] | None = None
) -> tuple[dict[str, CertificationBlock], list[Progress]]:
    blocks = dict(finished or {})
    seen: list[Progress] = []
    for block in CertificationEngine(procedure).run(task, finished or {}, seen.append):
        assert block.key not in blocks
        blocks[block.key] = block
    return blocks, seen


def _table(blocks: dict[str, CertificationBlock]) -> np.ndarray:
    parts = [block.certificates for block in blocks.values() if block.certificates is not None]
    columns = [np.concatenate([getattr(part, name) for part in parts]) for name in vars(parts[0])]
    return np.stack(columns)[:, np.argsort(columns[0])]


@pytest.mark.parametrize("procedure", ["fixed", "sequential"])
def test_batches_and_interruptions_change_nothing(
    linear_digits: nn.Module, procedure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, seen = _run(_task(linear_digits), procedure)
    assert (seen[-1].stage, seen[-1].done, seen[-1].total) == ("certify", 16, 16)
    table = _table(whole)
    assert table.shape == (6, 16)
    assert (table[3] > 0).sum() > 0
    assert _task(linear_digits).module is linear_digits

    monkeypatch.setattr(certification, "SECONDS_A_BLOCK", 0.0)
    pieces, _ = _run(_task(linear_digits, batch_size=37), procedure)
    assert len(pieces) > 4
    np.testing.assert_array_equal(_table(pieces), table)
    some = {key: pieces[key] for key in sorted(pieces)[:3]}
    resumed, _ = _run(_task(linear_digits, batch_size=90), procedure, some)
    np.testing.assert_array_equal(_table(resumed), table)
    assert sum(float(block.record["draws"]) for block in whole.values()) >= table[5].sum()


@pytest.mark.parametrize("procedure", ["fixed", "sequential"])
def test_progress_counts_what_is_known(
    linear_digits: nn.Module, procedure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certification, "SECONDS_BETWEEN_REPORTS", 0.0)
    task = _task(linear_digits, batch_size=37)
    # Some labels are wrong, so that some votes are.
    task = replace(task, labels=torch.where(torch.arange(16) < 5, 9 - task.labels, task.labels))
    blocks, seen = _run(task, procedure)
    table = _table(blocks)
    right = int((table[2] == table[1]).sum())
    assert 0 < right < 16
    assert all(each.done <= each.total and each.robust <= right for each in seen)
    assert all(each.robust <= each.examples <= max(each.done, 1) for each in seen)
    assert len({each.done for each in seen}) > 3
    assert (seen[-1].robust, seen[-1].examples) == (right, 16)
    _, again = _run(task, procedure, blocks)
    assert not again


def test_gradients_stay_on_for_whoever_takes_the_blocks(linear_digits: nn.Module) -> None:
    for _ in CertificationEngine().run(_task(linear_digits), {}, lambda _: None):
        assert torch.is_grad_enabled()


def test_the_sequential_procedure_settles_the_threat_models_radius() -> None:
    class Constant(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.new_tensor([1.0] + [0.0] * 9).repeat(len(images), 1)

    task = replace(
        _task(Constant()),
        threat_model=ThreatModel(norm="L2", eps=1.1),
        smoothing=Smoothing(0.5, 20, 5000),
    )
    assert CertificationEngine("sequential").settings(task)["radii"] == [0.0, 0.25, 0.5, 0.75, 1.1]
    blocks, _ = _run(task, "sequential")
    for block in blocks.values():
        assert block.certificates is not None
        assert (block.certificates.radius >= 1.1).all()
        summed = summarise(block.certificates, 0.5, (0.0, 0.25, 0.5, 0.75, 1.1))
        assert list(summed.accuracy_at_radius) == ["0.00", "0.25", "0.50", "0.75"]


def test_wrong_use_is_named(linear_digits: nn.Module) -> None:
    with pytest.raises(InputError, match="procedure of fixed, sequential; got 'quick'"):
        CertificationEngine("quick")
    with pytest.raises(InputError, match="precision of"):
        CertificationEngine("fixed", "float8")


def test_batches_that_do_not_fit_are_halved(linear_digits: nn.Module) -> None:
    class Small(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            if len(images) > 50:
                raise MemoryError
            sizes.add(len(images))
            logits: torch.Tensor = linear_digits(images)
            return logits

    sizes: set[int] = set()
    blocks, _ = _run(_task(Small()), "fixed")
    assert max(sizes) == 32
    np.testing.assert_array_equal(_table(blocks), _table(_run(_task(linear_digits), "fixed")[0]))
