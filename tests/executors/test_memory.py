"""A worker that runs out of memory goes on with half the images, and remembers that."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench.candidates.mix import Mix
from bench.engines import AttackTask
from bench.executors.crew import Brief, Event, Finished, Joined, Order, Question
from bench.executors.crew_executor import CrewExecutor
from bench.executors.hand import Hand, answer_of
from bench.executors.in_process import InProcess
from bench.executors.schedule import Schedule
from bench.suites.suite import AttackChoice
from tests.executors.runs import planned

ATTACKS = [
    AttackChoice(name="apgd-ce", parameters={"steps": 6}),
    AttackChoice(name="apgd-straight-through", parameters={"steps": 4, "targets": 1}),
    AttackChoice(name="apgd-expectation", parameters={"steps": 4, "targets": 1}),
    AttackChoice(name="square", parameters={"queries": 20}),
]


class Memory:
    """A device's memory: how many images fit, and how often they did not."""

    limit = 10**9
    ran_out = 0


class Cramped(nn.Module):
    """Runs out of memory as `Memory` says."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images: Tensor) -> Tensor:
        if len(images) > Memory.limit:
            Memory.ran_out += 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        logits: Tensor = self.inner(images)
        return logits


class OneHand:
    """A crew of one worker in this process, whose memory shrinks once all is prepared."""

    size = most = 1
    device_type = None

    def __init__(self) -> None:
        self.ran_out: list[tuple[str, int]] = []
        """By order: the stage, and how often memory ran out."""
        self._hand = Hand()
        self._events: list[Event] = [Joined("it")]
        self._module: Any = None

    def begin(self, brief: Brief, own: InProcess) -> None:
        if brief.task.module is not self._module:
            self._hand.take(brief.task, 1)
            self._module = brief.task.module

    def give(self, worker: str, brief: Brief, work: Order | Question) -> None:
        self._hand.follow(brief.chain)
        name = "question"
        if isinstance(work, Order):
            stage = brief.chain[work.stage]
            name = stage.name
            assert self._hand._worker is not None
            if stage.setup is not None:
                self._hand._worker.prepared(stage.setup)
            Memory.limit, Memory.ran_out = 4, 0
        answer = answer_of("it", self._hand.do(work))
        Memory.limit = 10**9
        assert isinstance(answer, Finished), answer
        if isinstance(work, Order):
            self.ran_out.append((name, Memory.ran_out))
        self._events = [answer]

    def events(self, seconds: float) -> list[Event]:
        found, self._events = self._events, []
        return found

    def end(self, brief: Brief, busy: Collection[str]) -> Collection[str]:
        return busy

    def close(self) -> None:
        """Do nothing."""


@pytest.fixture(autouse=True)
def _enough_memory() -> Iterator[None]:
    yield
    Memory.limit = 10**9


@pytest.mark.parametrize("kind", ["evaluation", "certification", "sweep"])
def test_each_stage_goes_on_with_half_and_remembers(
    kind: str, tmp_path: Path, linear_digits: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned(kind, tmp_path, batch_size=16, samples=14).plan
    task: Any = plan.task
    if isinstance(task.module, Mix):
        task.module.robust = Cramped(task.module.robust)
    else:
        inner = linear_digits if kind == "evaluation" else task.module
        task = replace(task, module=Cramped(inner).eval())
    if kind == "evaluation":
        assert isinstance(task, AttackTask)
        # In a small ball nearly all stand, and each stage has several shards.
        threat = task.threat_model.model_copy(update={"eps": 0.005})
        task = replace(task, attacks=tuple(ATTACKS), eps_curve=True, threat_model=threat)
    monkeypatch.setattr(Schedule, "_size", lambda *_: 6)
    crew = OneHand()
    blocks = list(plan.engine.run(task, {}, lambda _: None, CrewExecutor(crew, InProcess())))
    assert blocks
    stages = dict.fromkeys(name for name, _ in crew.ran_out)
    for stage in stages:
        first, *later = [count for name, count in crew.ran_out if name == stage]
        assert first > 0, crew.ran_out
        assert later, crew.ran_out
        # A sweep's later shard may search where the first one only asked.
        assert not any(later[kind == "sweep" :]), crew.ran_out
    if kind == "evaluation":
        assert list(stages) == ["clean", *(each.name for each in ATTACKS), "eps-curve"]
