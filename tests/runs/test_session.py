"""A run from its beginning to its end: interrupted anywhere, and summed up again."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn

from bench import data
from bench.candidates import Candidate
from bench.engines import search
from bench.runs.session import RunResult, evaluate
from bench.runs.settings import Settings
from bench.store import RunFolder, Store
from bench.store.records import Block
from bench.suites import load_suite
from bench.suites.suite import AttackChoice
from tests.silent import SilentObserver

N = 12
ATTACKS = (
    AttackChoice(name="apgd-ce", parameters={"steps": 5}),
    AttackChoice(name="square", parameters={"queries": 20}),
)


class _Killed(Exception):
    pass


def _run(module: nn.Module, root: Path) -> RunResult:
    suite = load_suite("digits-linf")
    protocol = suite.protocol("standard").model_copy(update={"attacks": ATTACKS})
    suite = suite.model_copy(update={"protocols": {"standard": protocol}})
    settings = Settings(suite, n_examples=N, eps=0.08, batch_size=4)
    candidate = Candidate("linear", module, {"weights": "1" * 64}, "2" * 64)
    samples = data.load("digits").first(N)
    return evaluate(candidate, samples, settings, Store(root), SilentObserver())


def test_a_run_that_is_killed_after_any_block_ends_as_if_left_alone(
    linear_digits: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "SECONDS_A_BLOCK", 0.0)  # many blocks
    append = RunFolder.append
    kept: list[str] = []

    def counted(self: RunFolder, block: Block) -> None:
        append(self, block)
        kept.append(block.key)

    monkeypatch.setattr(RunFolder, "append", counted)
    alone = _run(linear_digits, tmp_path / "alone")
    blocks = len(kept)
    assert blocks >= 3
    attempts = alone.folder.attempts().drop(columns="seconds").sort_values(["attack", "index"])
    for number in range(1, blocks):
        left = iter(range(number))

        def mortal(self: RunFolder, block: Block, left: object = left) -> None:
            append(self, block)
            if next(left, None) is None:  # type: ignore[call-overload]
                raise _Killed

        root = tmp_path / f"killed-{number}"
        monkeypatch.setattr(RunFolder, "append", mortal)
        with pytest.raises(_Killed):
            _run(linear_digits, root)
        monkeypatch.setattr(RunFolder, "append", append)
        resumed = _run(linear_digits, root)
        assert resumed.summary.run == alone.summary.run
        assert resumed.folder.samples().equals(alone.folder.samples())
        again = resumed.folder.attempts().drop(columns="seconds")
        again = again.sort_values(["attack", "index"])
        assert again.to_dict("list") == attempts.to_dict("list")
        witnesses = (resumed.folder.path / "witnesses.npz").exists()
        assert witnesses == (alone.folder.path / "witnesses.npz").exists()


def test_a_lost_summary_is_made_again_from_the_tables(
    linear_digits: nn.Module, tmp_path: Path
) -> None:
    first = _run(linear_digits, tmp_path)
    (first.folder.path / "run.json").unlink()
    again = _run(linear_digits, tmp_path)
    assert not again.reused
    lost = {"engine_record", "finished"}
    assert again.summary.model_dump(exclude=lost) == first.summary.model_dump(exclude=lost)
