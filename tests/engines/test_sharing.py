"""Samples shared out among processes end as in one process, and no process is lost in silence."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from bench import data
from bench.candidates import Candidate
from bench.engines import AttackTask, make_engine, sharing
from bench.engines.progress import Progress
from bench.errors import EvaluationError, InputError
from bench.runs.evaluation import Evaluation
from bench.runs.session import make_plan
from bench.runs.settings import Settings
from bench.store.records import AttackBlock
from bench.store.tables import Tables
from bench.suites import load_suite

SAMPLES = 30


@pytest.fixture(autouse=True)
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "WORTH_SECONDS", 0.0)
    monkeypatch.setattr(sharing, "LEAST_SAMPLES", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)


def _task(module: nn.Module) -> AttackTask:
    suite = load_suite("digits-linf")
    settings = Settings(suite, engine="fast", protocol="standard", eps=0.05)
    samples = data.load("digits").first(SAMPLES)
    task = make_plan(Candidate("it", module, {}, ""), samples, settings).task
    parameters = {"apgd-t": {"targets": 2}, "fab-t": {"targets": 2}, "square": {"queries": 50}}
    attacks = (
        each.model_copy(update={"parameters": parameters.get(each.name, {})})
        for each in task.attacks
    )
    return replace(task, attacks=tuple(attacks))


def _run(
    task: AttackTask, finished: dict[str, AttackBlock] | None = None
) -> dict[str, AttackBlock]:
    blocks = dict(finished or {})
    for block in make_engine("fast").run(task, finished or {}, lambda _: None):
        assert block.key not in blocks
        blocks[block.key] = block
    return blocks


def _tables(blocks: dict[str, AttackBlock]) -> Tables:
    return Evaluation().join([blocks[key] for key in sorted(blocks)])


def _outcomes(blocks: dict[str, AttackBlock]) -> list[tuple[object, ...]]:
    columns = ["attack", "index", "outcome", "iteration", "forward_passes", "backward_passes"]
    return sorted(_tables(blocks).attempts[columns].itertuples(index=False, name=None))


def test_several_processes_end_as_one_does(
    linear_digits: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = _task(linear_digits)
    shared = _run(task)
    assert {block.record.get("processes") for block in shared.values()} == {None, "3"}
    begun = {key: block for key, block in shared.items() if not key.startswith(("03", "04"))}
    resumed = _run(task, begun)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    alone = _run(task)
    assert _outcomes(shared) == _outcomes(resumed) == _outcomes(alone)
    ours, theirs = _tables(shared), _tables(alone)
    assert ours.samples.equals(theirs.samples)
    assert 0 < int(ours.samples["robust"].sum()) < int(ours.samples["clean_correct"].sum())


def test_progress_is_that_of_all(linear_digits: nn.Module) -> None:
    task = _task(linear_digits)
    reports: list[Progress] = []
    blocks = list(make_engine("fast").run(task, {}, reports.append))
    assert {each.examples for each in reports} == {SAMPLES}
    robust = int(Evaluation().join(blocks).samples["robust"].sum())
    assert (reports[-1].stage, reports[-1].robust) == ("square", robust)
    assert reports[-1].done == reports[-1].total
    stages = [each.stage for each in reports]
    assert list(dict.fromkeys(stages)) == ["clean", "apgd-ce", "apgd-t", "fab-t", "square"]


def _raise() -> None:
    raise KeyError("lost")


def _refuse() -> None:
    raise InputError("no such thing")


@pytest.mark.parametrize(
    ("fail", "error", "text"),
    [
        (_raise, EvaluationError, r"failed: KeyError: 'lost' \(test_sharing.py, line"),
        (_refuse, InputError, "no such thing"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), EvaluationError, "exit code -9"),
    ],
)
def test_a_process_that_fails_is_told(
    linear_digits: nn.Module, fail: Callable[[], None], error: type[Exception], text: str
) -> None:
    def work(
        task: AttackTask, standing: Tensor, report: Callable[[Progress], None]
    ) -> Iterator[AttackBlock]:
        if 1 in task.indices.tolist():
            fail()
        yield AttackBlock(key="01-apgd-ce-00000", seconds=1.0)

    task = _task(linear_digits)
    standing = torch.ones(SAMPLES, dtype=torch.bool)
    with pytest.raises(error, match=text):
        list(sharing.share_out(task, standing, 3, {}, lambda _: None, work))
