"""The reference engine gives pyautoattack's own flags, whole or resumed."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch
from torch import nn

from bench import data
from bench.engines import AttackTask, make_engine, reference
from bench.engines.engine import broken_rows
from bench.errors import EvaluationError, InputError
from bench.executors.progress import Progress
from bench.store.records import AttackBlock
from bench.suites import ThreatModel, load_suite
from bench.suites.suite import AttackChoice


def _task(
    module: nn.Module, n: int = 24, norm: Literal["Linf", "L2"] = "Linf", eps: float = 0.04
) -> AttackTask:
    samples = data.load("digits").first(n)
    return AttackTask(
        module=module,
        images=samples.images,
        labels=samples.labels,
        indices=samples.indices,
        classes=10,
        threat_model=ThreatModel(norm=norm, eps=eps),
        attacks=load_suite("digits-linf").protocol("standard").attacks,
        seed=5,
        batch_size=10,
        device=torch.device("cpu"),
    )


def _run(
    task: AttackTask, finished: dict[str, AttackBlock] | None = None
) -> dict[str, AttackBlock]:
    blocks = dict(finished or {})
    seen: list[Progress] = []
    for block in make_engine("reference").run(task, finished or {}, seen.append):
        assert block.key not in blocks
        blocks[block.key] = block
    assert seen[-1].stage == "square"
    return blocks


@pytest.mark.parametrize(("norm", "eps"), [("Linf", 0.04), ("L2", 0.3)])
def test_flags_equal_pyautoattack(linear_digits: nn.Module, norm: str, eps: float) -> None:
    from pyautoattack import AutoAttack

    task = _task(linear_digits, norm=norm, eps=eps)
    blocks = _run(task)
    with torch.random.fork_rng():
        adversary = AutoAttack(linear_digits, norm=norm, eps=eps, seed=5)
        images, _ = adversary.run_standard_evaluation(task.images, task.labels, batch_size=10)
    theirs = linear_digits(images).argmax(dim=1) == task.labels
    ours = linear_digits(task.images).argmax(dim=1) == task.labels
    for block in blocks.values():
        ours[broken_rows(task, block)] = False
        if block.witnesses is not None:
            rows = broken_rows(task, block)
            np.testing.assert_array_equal(block.witnesses.images, images[rows].numpy())
    assert 0 < int(ours.sum()) < len(ours)
    assert torch.equal(ours, theirs)


def test_resumed_blocks_are_not_done_again(linear_digits: nn.Module) -> None:
    task = _task(linear_digits)
    whole = _run(task)
    half = {key: whole[key] for key in sorted(whole)[: len(whole) // 2]}
    resumed = _run(task, half)
    assert list(map(str, sorted(resumed))) == sorted(whole)
    for key, block in whole.items():
        for part in ("clean", "attempts", "witnesses"):
            ours, theirs = getattr(resumed[key], part), getattr(block, part)
            assert (ours is None) == (theirs is None)
            for name in vars(ours) if ours is not None else ():
                if name != "seconds":
                    np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))


def test_other_attacks_are_refused(linear_digits: nn.Module) -> None:
    task = _task(linear_digits)
    odd = AttackTask(**{**vars(task), "attacks": (AttackChoice(name="apgd-dlr"),)})
    with pytest.raises(InputError, match="apgd-dlr"):
        _run(odd)


def test_a_candidate_without_a_gradient_is_refused_with_the_engine_that_takes_it(
    linear_digits: nn.Module,
) -> None:
    class Cut(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.from_numpy(linear_digits(images).detach().numpy())

    with pytest.raises(EvaluationError, match=r"apgd-ce, apgd-t, fab-t need.*--engine fast"):
        _run(_task(Cut().eval()))


def test_a_batch_that_memory_cannot_hold_is_named(
    linear_digits: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(reference, "attack_batch", failing)
    with pytest.raises(EvaluationError, match="with batches of 10"):
        list(make_engine("reference").run(_task(linear_digits), {}, lambda _: None))
