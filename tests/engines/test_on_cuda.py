"""What engines ask of a GPU, and what they do when its memory runs out; on a pretend one."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from bench import data
from bench.attacks.attack import STEPS_BETWEEN_LOOKS
from bench.attacks.auto_pgd import APGD
from bench.candidates.mix import Mix
from bench.certification.smoothing import Smoothing
from bench.engines import AttackTask, CertificationTask
from bench.engines.certification import CertificationEngine
from bench.engines.fast import FastEngine
from bench.engines.sweep import SweepEngine
from bench.errors import EvaluationError
from bench.runs.evaluation import Evaluation
from bench.store.records import AttackBlock, CertificationBlock, SweepBlock
from bench.suites import ThreatModel
from bench.suites.suite import AttackChoice
from tests.pretend_cuda import PretendCuda

LINF = ThreatModel(norm="Linf", eps=0.06)
CHEAP = (
    AttackChoice(name="apgd-ce", parameters={"steps": 16}),
    AttackChoice(name="apgd-t", parameters={"steps": 8, "targets": 2}),
)


def _samples(module: nn.Module, n: int) -> dict[str, Any]:
    samples = data.load("digits").first(n)
    return {
        "module": module,
        "images": samples.images,
        "labels": samples.labels,
        "indices": samples.indices,
        "classes": 10,
        "seed": 3,
        "batch_size": 16,
        "device": torch.device("cpu"),
    }


def _attacked(module: nn.Module, n: int = 24) -> AttackTask:
    return AttackTask(**_samples(module, n), threat_model=LINF, attacks=CHEAP)


def _on_cuda(task: Any) -> Any:
    device = torch.device("cuda")
    return replace(task, module=copy.deepcopy(task.module).to(device), device=device)


def _broken(blocks: list[AttackBlock]) -> list[tuple[int, str]]:
    attempts = Evaluation().join(blocks).attempts
    return sorted(zip(attempts["index"], attempts["outcome"], strict=True))


def test_a_search_that_runs_out_of_memory_goes_on_with_half_the_batch(
    linear_digits: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle, with items that a step has changed already."""
    task = _attacked(linear_digits)
    whole = list(FastEngine().run(task, {}, lambda _: None))
    step, sizes = APGD.step, []

    def cramped(self: APGD, model: Any, state: Any) -> Any:
        sizes.append(len(state.labels))
        step(self, model, state)
        if len(sizes) > 5 and len(state.labels) > 3:
            raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`")
        return state

    monkeypatch.setattr(APGD, "step", cramped)
    pieces = list(FastEngine().run(task, {}, lambda _: None))
    assert _broken(pieces) == _broken(whole)
    record = {key: value for block in pieces for key, value in block.record.items()}
    assert "batch size of apgd-ce" in record
    assert sizes[-1] <= 3 < max(sizes)


def test_a_step_that_a_single_image_is_too_much_for_is_an_error(
    linear_digits: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(APGD, "step", failing)
    with pytest.raises(EvaluationError, match="a pass of a single image does not fit"):
        list(FastEngine().run(_attacked(linear_digits, 8), {}, lambda _: None))


def test_a_search_asks_a_gpu_once_in_eight_steps(
    linear_digits: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = _attacked(linear_digits)
    steps = 0
    step = APGD.step

    def counted(self: APGD, *arguments: Any) -> Any:
        nonlocal steps
        steps += 1
        return step(self, *arguments)

    monkeypatch.setattr(APGD, "step", counted)
    with PretendCuda() as cuda:
        blocks = list(FastEngine().run(_on_cuda(task), {}, lambda _: None))
        asked = cuda.syncs
    looks = [n for (_, place), n in asked.items() if place.startswith("engines/search.py")]
    assert max(looks) == steps / STEPS_BETWEEN_LOOKS["cuda"]
    # What enters and leaves the batch is sent from pinned memory, by places the host knows.
    ours = {
        kind for kind, place in asked if place.startswith(("engines/search.py", "engines/batch.py"))
    }
    assert ours <= {"d2h", "item"}
    assert _broken(blocks) == _broken(list(FastEngine().run(task, {}, lambda _: None)))


def _swept(task: AttackTask) -> list[SweepBlock]:
    return list(SweepEngine((0.0, 0.5, 1.0)).run(task, {}, lambda _: None))


def test_a_sweep_waits_seldom_and_ends_alike_with_little_memory(linear_digits: nn.Module) -> None:
    steep = copy.deepcopy(linear_digits)
    with torch.no_grad():
        steep[1].weight.mul_(3)
    task = _attacked(Mix(steep, linear_digits, 0.5).eval(), 12)
    expected = _swept(task)[-1].results
    with PretendCuda() as cuda:
        roomy = _swept(_on_cuda(task))
        searching = [
            n for (_, place), n in cuda.syncs.items() if place.startswith("engines/point_search")
        ]
        needed = cuda.peak
    # Three weights, a search of 17 steps and two of 9, with a look after 8, 16, ... and the last;
    # and the random starts of the first three, which are kept on the host.
    assert sum(searching) <= 3 * (3 + 2 * 2) + 3
    with PretendCuda(memory=needed // 2):
        tight = _swept(_on_cuda(task))
    for blocks in (roomy, tight):
        np.testing.assert_array_equal(blocks[-1].results.broken_by, expected.broken_by)
    assert "batch size" in tight[0].record


def _certified(task: CertificationTask) -> list[CertificationBlock]:
    return list(CertificationEngine().run(task, {}, lambda _: None))


def test_a_certification_holds_a_batch_on_the_gpu_and_halves_it(linear_digits: nn.Module) -> None:
    def task(n: int) -> CertificationTask:
        threat = ThreatModel(norm="L2", eps=0.25)
        smoothing = Smoothing(0.15, 2, 6)
        return CertificationTask(
            **_samples(linear_digits, n), threat_model=threat, smoothing=smoothing
        )

    peaks = []
    for n in (16, 64):
        with PretendCuda() as cuda:
            roomy = _certified(_on_cuda(task(n)))
            peaks.append(cuda.peak)
    more_images = (64 - 16) * 64 * 4
    assert peaks[1] - peaks[0] < more_images / 2
    with PretendCuda(memory=peaks[1] * 0.7):
        tight = _certified(_on_cuda(task(64)))
    for blocks in (roomy, tight):
        np.testing.assert_array_equal(
            np.concatenate([block.certificates.certified_count for block in blocks]),
            np.concatenate([block.certificates.certified_count for block in _certified(task(64))]),
        )
