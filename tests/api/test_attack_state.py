"""The file and the log of attacks on tensors, while the run is not complete or fails."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from bench.api.attack_log import Lines, RunLog
from bench.api.attack_run import AttackSettings, attack_task
from bench.api.attack_state import AttackState
from bench.autoattack import EvaluationState
from bench.engines import AttackTask
from bench.engines.attack_works import Clean, OneAttack, preparation
from bench.engines.engine import plan
from bench.errors import InputError
from bench.store.records import AttackBlock, CleanResults
from bench.suites.suite import AttackChoice

N = 4


@pytest.fixture
def task(linear_digits: nn.Module) -> AttackTask:
    """A task of N samples with the label 0."""
    images, labels = torch.zeros(N, 1, 8, 8), torch.zeros(N, dtype=torch.int64)
    settings = AttackSettings(norm="Linf", eps=0.1, attacks=(AttackChoice(name="apgd-ce"),))
    with attack_task(linear_digits, images, labels, settings) as made:
        return made


def _predicted(*index: int) -> AttackBlock:
    """Return the block of samples that are right without attack."""
    labels = np.zeros(len(index), dtype=np.int64)
    clean = CleanResults(np.array(index), labels, labels)
    return AttackBlock(key=f"00-clean-{index[0]:05d}", seconds=0.0, clean=clean)


def _failed_attack(task: AttackTask) -> AttackBlock:
    setup = preparation(task, torch.arange(N), "float32", needs_gradient=True)
    block = OneAttack(setup, plan(task, task.attacks[0]), 0).failed(task.part(slice(0, 1)), "why")
    return replace(block, key=f"{block.key}-00000")


def _flags(state: AttackState, *blocks: AttackBlock, is_old: bool = False) -> list[float]:
    """Return the flags that are read from the file of a state with these blocks."""
    state.blocks = {block.key: block for block in blocks}
    state.save()
    if is_old:
        with np.load(state.path) as archive:
            arrays = dict(archive)
        header = json.loads(str(arrays.pop("header")))
        del header["samples"]
        with state.path.open("wb") as file:
            np.savez(file, header=np.array(json.dumps(header)), **arrays)
    flags: list[float] = EvaluationState.from_disk(state.path).robust_flags.tolist()
    return flags


def test_flags_are_refused_until_all_samples_are_predicted(
    task: AttackTask, tmp_path: Path
) -> None:
    state = AttackState(tmp_path / "state", task)
    first, second = _predicted(0, 1), _predicted(2, 3)
    for blocks in ([first], [second]):
        with pytest.raises(InputError, match="expected predictions of all 4 samples, got 2"):
            _flags(state, *blocks)
    assert _flags(state, second, first) == [1.0] * N


def test_a_state_without_the_number_of_samples_is_read_once_attacks_began(
    task: AttackTask, tmp_path: Path
) -> None:
    state = AttackState(tmp_path / "state", task)
    clean = _predicted(0, 1, 2, 3)
    with pytest.raises(InputError, match="expected predictions of all samples, got 4"):
        _flags(state, clean, is_old=True)
    assert _flags(state, clean, _failed_attack(task), is_old=True) == [0.0, 1.0, 1.0, 1.0]


def test_failed_samples_are_not_robust_and_are_tried_again(
    task: AttackTask, tmp_path: Path
) -> None:
    state = AttackState(tmp_path / "state", task)
    clean, failed = _predicted(0, 1, 2, 3), _failed_attack(task)
    assert _flags(state, clean, failed) == [0.0, 1.0, 1.0, 1.0]
    assert AttackState(state.path, task).blocks.keys() == {clean.key}
    unpredicted = Clean(1).failed(task.part(slice(3, 4)), "why")
    assert _flags(state, _predicted(0, 1, 2), unpredicted) == [1.0, 1.0, 1.0, 0.0]
    assert AttackState(state.path, task).blocks.keys() == {clean.key}


def test_a_sample_that_failed_before_any_attack_is_in_no_attacks_line(
    task: AttackTask, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = Clean(1).failed(task.part(slice(3, 4)), "why")
    log = RunLog(["apgd-ce", "square"], N, Lines(None, verbose=True))
    log.add(_predicted(0, 1, 2))
    log.add(failed)
    assert capsys.readouterr().out == "initial accuracy: 75.00%\n"
    log.restore([failed])
    assert "SQUARE" not in capsys.readouterr().out.upper()
