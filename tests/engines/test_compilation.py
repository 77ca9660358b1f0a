"""Compiled passes: equal results where they are taken, and the old ones wherever they fail."""

from __future__ import annotations

import os
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from torch import nn

from bench import data
from bench.candidates import Candidate
from bench.candidates.mix import Mix
from bench.certification.smoothing import Smoothing
from bench.engines import (
    AttackTask,
    CertificationTask,
    Task,
    certification,
    compilation,
    make_engine,
)
from bench.engines.certification import CertificationEngine
from bench.runs.evaluation import Evaluation
from bench.runs.session import make_plan
from bench.runs.settings import Settings
from bench.store.records import AttackBlock, CertificationBlock
from bench.suites import load_suite
from bench.suites.suite import AttackChoice


def _network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.SiLU(), nn.Flatten(), nn.Linear(256, 10)
        ).eval()


def _skip_without_compiler() -> None:
    """Skip a test on a machine without a C++ compiler; where CI runs there is one."""
    if os.environ.get("CI"):
        pytest.fail("expected a C++ compiler where CI is set, got none")
    pytest.skip("there is no C++ compiler here")


def _task(module: nn.Module) -> AttackTask:
    suite = load_suite("digits-linf")
    settings = Settings(suite, engine="fast", protocol="standard", eps=0.02)
    task = make_plan(
        Candidate("small", module, {}, ""), data.load("digits").first(8), settings
    ).task
    with torch.no_grad():
        labels = module(task.images).argmax(dim=1)
    return replace(task, labels=labels, attacks=task.attacks[:2], batch_size=8)


def _run(task: AttackTask) -> dict[str, AttackBlock]:
    return {block.key: block for block in make_engine("fast").run(task, {}, lambda _: None)}


def _record(blocks: dict[str, AttackBlock]) -> set[Any]:
    return {block.record["compiled"] for block in blocks.values() if "compiled" in block.record}


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compilation, "WORTH_SECONDS", 0.0)
    monkeypatch.setattr(compilation, "FORWARD_WORTH_SECONDS", 0.0)
    monkeypatch.setattr(compilation, "LEAST_GAIN", 0.0)


@pytest.mark.parametrize(
    "module", [_network(), Mix(_network(), nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), 0.5)]
)
@pytest.mark.usefixtures("eager")
def test_compiled_passes_break_the_same_samples_and_are_kept_on_resumption(
    module: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = _task(module.eval())
    compiled = _run(task)
    (record,) = _record(compiled)
    if "InvalidCxxCompiler" in record:
        _skip_without_compiler()
    assert record.startswith("yes"), record
    monkeypatch.setattr(compilation, "WORTH_SECONDS", float("inf"))
    plain = _run(task)
    assert _record(plain) == {"no: the run is too short to win it back"}
    ours, theirs = (Evaluation().join(list(blocks.values())) for blocks in (compiled, plain))
    assert ours.samples["robust"].tolist() == theirs.samples["robust"].tolist()
    last = max(compiled)
    begun = {key: block for key, block in compiled.items() if key != last}
    resumed = {block.key: block for block in make_engine("fast").run(task, begun, lambda _: None)}
    assert _record(resumed) == {record}


@pytest.mark.usefixtures("eager")
def test_a_traced_network_is_compiled_in_bfloat16_too() -> None:
    """Copied, a traced one would lose the hook that casts its images."""
    plain = _network()
    traced = nn.Sequential(plain[0], nn.BatchNorm2d(4), *plain[1:]).eval()
    engine = make_engine("fast", "bfloat16")
    blocks = {block.key: block for block in engine.run(_task(traced), {}, lambda _: None)}
    (record,) = _record(blocks)
    if "InvalidCxxCompiler" in record:
        _skip_without_compiler()
    assert record.startswith("yes"), record


@pytest.mark.usefixtures("eager")
def test_an_attack_that_goes_back_more_than_once_takes_passes_that_are_not_compiled() -> None:
    task = _task(_network())
    choice = AttackChoice(name="fab", parameters={"steps": 3})
    blocks = _run(replace(task, attacks=(task.attacks[0], choice)))
    if any("InvalidCxxCompiler" in record for record in _record(blocks)):
        _skip_without_compiler()
    assert all(record.startswith("yes") for record in _record(blocks))
    assert any(key.startswith("02-fab") for key in blocks)


@pytest.mark.usefixtures("eager")
def test_a_network_that_does_not_compile_runs_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no such\nbackend")

    monkeypatch.setattr(torch, "compile", fail)
    blocks = _run(_task(_network()))
    assert _record(blocks) == {"no: RuntimeError: no such backend"}
    assert len(Evaluation().join(list(blocks.values())).samples) == 8


@pytest.mark.usefixtures("eager")
def test_compiled_votes_certify_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certification, "TIMED_PASSES", 0)
    common = {each.name: getattr(_task(_network()), each.name) for each in fields(Task)}
    smoothing = Smoothing(0.25, 10, 200)
    task = CertificationTask(**common | {"batch_size": 64}, smoothing=smoothing)

    def certified(finished: dict[str, CertificationBlock]) -> dict[str, CertificationBlock]:
        return {b.key: b for b in CertificationEngine().run(task, finished, lambda _: None)}

    def votes(blocks: dict[str, CertificationBlock]) -> dict[int, int]:
        parts = [block.certificates for block in blocks.values()]
        return {
            index: count
            for part in parts
            for index, count in zip(part.index, part.certified_count, strict=True)
        }

    monkeypatch.setattr(certification, "SECONDS_A_BLOCK", 0.0)
    compiled = certified({})
    (record,) = _record(compiled)
    if "InvalidCxxCompiler" in record:
        _skip_without_compiler()
    assert record.startswith("yes"), record
    monkeypatch.setattr(compilation, "FORWARD_WORTH_SECONDS", float("inf"))
    plain = certified({})
    assert _record(plain) == {"no: the run is too short to win it back"}
    for index, count in votes(plain).items():
        assert abs(votes(compiled)[index] - count) <= 2  # rounding may turn a vote
    for whole in (compiled, plain):
        begun = {min(whole): whole[min(whole)]}
        rest = certified(begun)
        assert _record(rest) == _record(whole)
        assert votes(begun | rest) == votes(whole)
