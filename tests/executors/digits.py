"""A task on digits that every executor does, and what is compared of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import nn

from bench import data
from bench.candidates import Candidate
from bench.engines import AttackTask
from bench.engines.fast import FastEngine
from bench.executors.stage import Executor
from bench.runs.evaluation import Evaluation
from bench.runs.session import make_plan
from bench.runs.settings import Settings
from bench.store.records import AttackBlock
from bench.store.tables import Tables
from bench.suites import load_suite

SAMPLES = 30
PARAMETERS = {"apgd-t": {"targets": 2}, "fab-t": {"targets": 2}, "square": {"queries": 50}}


def digits_task(module: nn.Module, samples: int = SAMPLES) -> AttackTask:
    """Return a short standard AutoAttack on a few digits."""
    settings = Settings(load_suite("digits-linf"), engine="fast", protocol="standard", eps=0.05)
    dataset = data.load("digits").first(samples)
    task = make_plan(Candidate("it", module, {}, ""), dataset, settings).task
    assert isinstance(task, AttackTask)
    attacks = tuple(
        each.model_copy(update={"parameters": PARAMETERS.get(each.name, {})})
        for each in task.attacks
    )
    return replace(task, attacks=attacks)


def run(
    task: AttackTask,
    executor: Executor | None = None,
    finished: Mapping[str, AttackBlock] | None = None,
) -> dict[str, AttackBlock]:
    """Return the blocks of a run by key, the finished ones too; no key comes twice."""
    blocks = dict(finished or {})
    for block in FastEngine().run(task, finished or {}, lambda _: None, executor):
        assert block.key not in blocks
        blocks[block.key] = block
    return blocks


def tables(blocks: Mapping[str, AttackBlock]) -> Tables:
    """Return a run's tables."""
    return Evaluation().join([blocks[key] for key in sorted(blocks)])


def outcomes(blocks: Mapping[str, AttackBlock]) -> list[tuple[object, ...]]:
    """Return what every attempt came to, whatever the order."""
    columns = ["attack", "index", "outcome", "iteration", "forward_passes", "backward_passes"]
    return sorted(tables(blocks).attempts[columns].itertuples(index=False, name=None))
