"""The express engine: never fooled by masked gradients, the same in any batch, resumable."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from bench.candidates import Candidate
from bench.engines import AttackTask
from bench.engines.express import LEFT, ExpressEngine
from bench.executors.progress import Progress
from bench.runs.session import Plan, make_plan
from bench.runs.settings import Settings
from bench.store.records import AttackBlock
from bench.suites import Suite, load_suite
from tests.flags import defences

PROTOCOL = [
    {"name": "apgd-ce", "parameters": {"steps": 20}},
    {"name": "apgd-t", "parameters": {"steps": 20, "targets": 3}},
    {"name": "square", "parameters": {"queries": 300}},
]


def plan_for(module: nn.Module, protocol: str, *, randomized: bool = False) -> Plan:
    suite = Suite.model_validate(
        {
            "name": "own",
            "version": 1,
            "title": "own",
            "data": "digits",
            "threat_model": {"norm": "Linf", "eps": defences.EPS},
            "protocols": {"standard": {"attacks": PROTOCOL}},
        }
    )
    candidate = Candidate("it", module, {}, "it", randomized=randomized)
    settings = Settings(suite, n_examples=defences.N, protocol=protocol)
    return make_plan(candidate, defences.samples(), settings)


def task_for(module: nn.Module, *, randomized: bool = False) -> AttackTask:
    task = plan_for(module, "express", randomized=randomized).task
    assert isinstance(task, AttackTask)
    return task


def blocks_of(
    task: AttackTask, finished: dict[str, AttackBlock] | None = None
) -> list[AttackBlock]:
    return list(ExpressEngine().run(task, finished or {}, lambda _: None))


def standing(task: AttackTask, blocks: list[AttackBlock]) -> set[int]:
    right: set[int] = set()
    broken: set[int] = set()
    for block in blocks:
        if block.clean is not None:
            good = block.clean.prediction == block.clean.label
            right |= set(block.clean.index[good].tolist())
        if block.witnesses is not None:
            broken |= set(block.witnesses.index.tolist())
    return right - broken


def escalated(blocks: list[AttackBlock]) -> str:
    (last,) = [block for block in blocks if LEFT in block.key]
    return str(last.record.get("express_escalated", ""))


DEFENCES = {
    "quantized": defences.Defence(defences.base(), before=defences.quantized),
    "jpeg": defences.Defence(defences.base(), before=defences.jpeg),
    "sparsified": defences.Defence(defences.base(), before=defences.sparsified),
    "shattered": defences.Defence(defences.base(), before=defences.shattered),
    "saturated": defences.Defence(defences.base(), before=defences.saturated),
    "cold logits": defences.Defence(defences.base(), after=lambda logits: logits * 1e4),
    "warm logits": defences.Defence(defences.base(), after=lambda logits: logits * 20),
    "probabilities": defences.Defence(defences.base(), after=lambda logits: logits.softmax(1)),
    "purified": defences.Purified(defences.base()),
    "detached weight": defences.detached_weight(),
    "batch-centred": defences.Defence(defences.base(), before=defences.batch_centred),
    "undeclared noise": defences.Defence(defences.base(), before=defences.noisy),
    "dropout left on": defences.left_on(),
}
"""Those of `tests/flags/test_defences.py`: each raises a flag there, or in the further attacks."""


@pytest.mark.parametrize("name", DEFENCES)
def test_no_broken_defence_raises_the_number(name: str) -> None:
    module = DEFENCES[name].eval()
    with torch.random.fork_rng():  # two of them draw in every call
        torch.manual_seed(0)
        task = task_for(module)
        blocks = blocks_of(task)
        plan = plan_for(module, "standard")
        theirs = standing(task, list(plan.engine.run(plan.task, {}, lambda _: None)))
    ours = standing(task, blocks)
    assert len(ours) <= len(theirs) or escalated(blocks), (len(ours), len(theirs))


def test_randomness_escalates() -> None:
    module = defences.Defence(defences.base(), before=defences.noisy)
    with torch.random.fork_rng():
        assert "random" in escalated(blocks_of(task_for(module, randomized=True)))


def test_an_honest_network_is_not_escalated_and_an_interrupted_run_goes_on() -> None:
    task = task_for(defences.base())
    blocks = blocks_of(task)
    assert not escalated(blocks)
    rest = blocks_of(task, {block.key: block for block in blocks[: len(blocks) // 2]})
    assert [block.key for block in rest] == [block.key for block in blocks[len(blocks) // 2 :]]
    assert standing(task, blocks[: len(blocks) // 2] + rest) == standing(task, blocks)


def test_progress_counts_the_samples_that_an_attack_is_not_tried_on() -> None:
    task = replace(task_for(defences.base()), eps_curve=True)
    told: list[Progress] = []
    blocks = list(ExpressEngine().run(task, {}, told.append))
    counts = [each.robust for each in told if each.stage != "clean"]
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] == len(standing(task, blocks))
    assert told[-1].stage == "eps-curve"


def test_batches_change_nothing() -> None:
    task = task_for(defences.base())
    large, small = blocks_of(task), blocks_of(replace(task, batch_size=7))
    assert standing(task, large) == standing(task, small)
    assert [block.key for block in large] == [block.key for block in small]
    for one, other in zip(large, small, strict=True):
        if one.attempts is not None and other.attempts is not None:
            assert np.array_equal(np.sort(one.attempts.index), np.sort(other.attempts.index))


def test_every_attacked_suite_has_the_protocol_and_a_certifying_one_does_not() -> None:
    assert load_suite("cifar10-linf").protocol("express").kind == "express"
    names = [each.name for each in load_suite("cifar10-linf").protocol("express").attacks]
    assert "apgd-mix-margin" in names
