"""Workers of this machine end as this process alone does, and none is lost in silence."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from bench.errors import EvaluationError
from bench.executors.crew_executor import CrewExecutor
from bench.executors.here import ThisMachine
from bench.executors.in_process import InProcess
from bench.executors.local import LocalCrew
from bench.executors.progress import Progress
from tests.executors.digits import SAMPLES, digits_task, outcomes, run, tables


@pytest.fixture
def two() -> Iterator[ThisMachine]:
    machine = ThisMachine(2)
    yield machine
    machine.close()


def test_forked_workers_end_as_one_process_does(linear_digits: nn.Module, two: ThisMachine) -> None:
    task = digits_task(linear_digits)
    alone, shared = run(task), run(task, two)
    assert outcomes(shared) == outcomes(alone)
    ours, theirs = tables(shared), tables(alone)
    assert ours.samples.equals(theirs.samples)
    assert 0 < int(ours.samples["robust"].sum()) < int(ours.samples["clean_correct"].sum())
    # A run goes on with any number of workers, whatever is missing.
    for left_out in ("03", "02"):
        begun = {key: block for key, block in shared.items() if not key.startswith(left_out)}
        begun.pop(sorted(begun)[-1])
        assert outcomes(run(task, None, begun)) == outcomes(alone)
        assert outcomes(run(task, two, begun)) == outcomes(alone)


def test_new_processes_get_the_candidate_as_bytes(linear_digits: nn.Module) -> None:
    task = digits_task(linear_digits)
    crew = LocalCrew([torch.device("cpu")] * 2, fork=False)
    try:
        shared = run(task, CrewExecutor(crew, InProcess()))
    finally:
        crew.close()
    assert outcomes(shared) == outcomes(run(task))


def test_workers_are_on_the_gpu_that_the_task_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    names = {
        (asked, device): [str(each) for each in _devices(asked, device)]
        for asked in (None, 3)
        for device in ("cuda", "cuda:2")
    }
    assert names == {
        (None, "cuda"): ["cuda:0", "cuda:1", "cuda:2", "cuda:3"],
        (None, "cuda:2"): ["cuda:2"],
        (3, "cuda"): ["cuda:0", "cuda:1", "cuda:2"],
        (3, "cuda:2"): ["cuda:2"] * 3,
    }


def _devices(asked: int | None, device: str) -> list[torch.device]:
    task = SimpleNamespace(device=torch.device(device))
    return ThisMachine(asked)._devices(task, [], 100, 1.0)


def test_progress_is_that_of_all(linear_digits: nn.Module, two: ThisMachine) -> None:
    task = digits_task(linear_digits)
    reports: list[Progress] = []
    from bench.engines.fast import FastEngine

    blocks = list(FastEngine().run(task, {}, reports.append, two))
    robust = int(tables({block.key: block for block in blocks}).samples["robust"].sum())
    assert {each.examples for each in reports if each.stage != "clean"} == {SAMPLES}
    assert (reports[-1].stage, reports[-1].robust) == ("square", robust)
    assert reports[-1].done == reports[-1].total
    assert {each.stage for each in reports} == {"clean", "apgd-ce", "apgd-t", "fab-t", "square"}
    counts = [each.robust for each in reports if each.stage != "clean"]
    assert counts == sorted(counts, reverse=True)


class KillsItsProcess(nn.Module):
    """Ends the process that passes it a batch, as often as a file says; never the first one's."""

    def __init__(self, inner: nn.Module, folder: Path, times: int) -> None:
        super().__init__()
        self.inner = inner
        self.folder = folder
        self.times = times
        self.home = os.getpid()

    def forward(self, images: Tensor) -> Tensor:
        if os.getpid() != self.home and len(list(self.folder.iterdir())) < self.times:
            (self.folder / str(os.getpid())).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        logits: Tensor = self.inner(images)
        return logits


def test_a_killed_worker_is_replaced(
    linear_digits: nn.Module, two: ThisMachine, tmp_path: Path
) -> None:
    expected = outcomes(run(digits_task(linear_digits)))
    task = digits_task(KillsItsProcess(linear_digits, tmp_path, 3).eval())
    assert outcomes(run(task, two)) == expected
    assert len(list(tmp_path.iterdir())) >= 2


def test_workers_that_always_die_end_the_run(
    linear_digits: nn.Module, two: ThisMachine, tmp_path: Path
) -> None:
    task = digits_task(KillsItsProcess(linear_digits, tmp_path, 10**6).eval())
    with pytest.raises(EvaluationError, match=r"exit code -9 \(out of memory\?\).*goes on"):
        run(task, two)


class FailsOnSome(nn.Module):
    """Raises an error on some images."""

    def __init__(self, inner: nn.Module, marked: Tensor) -> None:
        super().__init__()
        self.inner = inner
        self.marked = marked

    def forward(self, images: Tensor) -> Tensor:
        same = (images.unsqueeze(1) == self.marked).flatten(2).all(dim=2)
        if bool(same.any()):
            raise KeyError("this one")
        logits: Tensor = self.inner(images)
        return logits


@pytest.mark.parametrize("workers", [1, 2])
def test_a_sample_on_which_the_candidate_raises_is_recorded(
    linear_digits: nn.Module, workers: int
) -> None:
    whole = digits_task(linear_digits)
    marked = whole.images[5:6]
    machine = ThisMachine(workers)
    blocks = run(digits_task(FailsOnSome(linear_digits, marked).eval()), machine)
    machine.close()
    found = tables(blocks)
    failed = found.attempts[found.attempts["outcome"] == "failed"]
    assert failed["index"].tolist() == [5]
    assert not bool(found.samples.set_index("index").loc[5, "robust"])
    records = [
        text
        for block in blocks.values()
        for name, text in block.record.items()
        if "failed on sample 5" in name
    ]
    assert len(records) == 1
    assert "KeyError: 'this one'" in str(records[0])
    others = [row for row in outcomes(run(whole)) if row[1] != 5]
    assert [row for row in outcomes(blocks) if row[1] != 5] == others


@pytest.mark.parametrize("workers", [1, 2])
def test_a_candidate_that_always_raises_ends_the_run(
    linear_digits: nn.Module, workers: int
) -> None:
    task = digits_task(linear_digits)
    machine = ThisMachine(workers)
    with pytest.raises(EvaluationError, match="failed: KeyError: 'this one'"):
        run(digits_task(FailsOnSome(linear_digits, task.images).eval()), machine)
    machine.close()


class HasNoAnswerForSome(FailsOnSome):
    """Gives NaN for some images."""

    def forward(self, images: Tensor) -> Tensor:
        same = (images.unsqueeze(1) == self.marked).flatten(2).all(dim=2).any(dim=1)
        logits: Tensor = self.inner(images)
        return torch.where(same.unsqueeze(1), torch.nan, logits)


@pytest.mark.parametrize("workers", [1, 2])
def test_logits_that_are_not_finite_count_against_the_candidate(
    linear_digits: nn.Module, workers: int
) -> None:
    whole = digits_task(linear_digits)
    machine = ThisMachine(workers)
    task = digits_task(HasNoAnswerForSome(linear_digits, whole.images[5:6]).eval())
    blocks = run(task, machine)
    machine.close()
    sample = tables(blocks).samples.set_index("index").loc[5]
    assert sample["clean_prediction"] == -1
    assert not bool(sample["robust"])
    others = [row for row in outcomes(run(whole)) if row[1] != 5]
    assert [row for row in outcomes(blocks) if row[1] != 5] == others


SCRIPT = """
import os
import sys
import torch
from torch import nn
from bench.executors.crew_executor import CrewExecutor
from bench.executors.in_process import InProcess
from bench.executors.local import LocalCrew
from tests.executors.digits import digits_task, run

print("the script runs", flush=True)

class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 10)

    def forward(self, images):
        print(f"asked in {os.getpid()}", flush=True)
        return self.layer(images.flatten(1))

torch.manual_seed(0)
crew = LocalCrew([torch.device("cpu")] * 2, fork=False)
blocks = run(digits_task(Network().eval(), samples=16), CrewExecutor(crew, InProcess()))
crew.close()
print(f"{len(blocks)} blocks in {os.getpid()} of {os.path.basename(__file__)}")
"""


def test_a_script_without_a_guard_runs_once(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    command = [sys.executable, str(script)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    *lines, last = done.stdout.splitlines()
    assert lines.count("the script runs") == 1
    own = last.split()[3]
    assert last.endswith("of script.py")
    assert {line.split()[2] for line in lines if line.startswith("asked in")} - {own}
