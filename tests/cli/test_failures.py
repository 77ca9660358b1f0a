"""What goes wrong in the middle of a command: one line, an exit code, and a way to go on."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import yaml
from click.testing import CliRunner, Result

from bench.cli import main
from bench.store import Store
from benchmarks.faults import forked
from tests.cli.test_sweep import SUITE

FAILING = """
from torch import nn

from bench import data

DIGITS = data.load("digits").images


class Failing(nn.Sequential):
    def __init__(self, least, most, known=1):
        super().__init__(nn.Flatten(), nn.Linear(64, 10))
        self.least, self.most, self.known = least, most, known

    def forward(self, images):
        known = DIGITS[: self.known].to(images.device)
        distance = (images[:, None] - known).abs().flatten(2).amax(2).amin(1)
        if bool(((distance >= self.least) & (distance <= self.most)).any()):
            raise ValueError("this digit is too odd")
        return super().forward(images)
"""
SLOW = """
import time

from torch import nn


class Slow(nn.Sequential):
    def forward(self, images):
        time.sleep(0.05)
        return super().forward(images)


def linear():
    return Slow(nn.Flatten(), nn.Linear(64, 10))
"""


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    path = tmp_path / "quick.yaml"
    path.write_text(yaml.safe_dump(SUITE))
    return path


def folders(tmp_path: Path) -> list[str]:
    return ["--results-dir", f"{tmp_path}/results", "--report-dir", f"{tmp_path}/reports"]


@pytest.mark.parametrize(
    ("least", "most", "workers"),
    [(0, 0, 1), (0, 0, 2), (1e-6, 0.05, 1)],
    ids=["clean", "clean-two-workers", "attacked"],
)
def test_failed_samples_are_shown_and_end_with_1(
    suite: Path,
    tmp_path: Path,
    write_submission: Callable[..., Path],
    least: float,
    most: float,
    workers: int,
) -> None:
    """The candidate fails on the first digit itself, or on images near it only."""
    arguments = {"least": least, "most": most}
    folder = write_submission("failing", architecture="model:Failing", architecture_args=arguments)
    (folder / "model.py").write_text(FAILING)

    def call() -> Result:
        command = ["run", "--suite", str(suite), "--candidate", str(folder)]
        workers_given = ["--executor", f"local:{workers}"]
        return CliRunner().invoke(main, [*command, *workers_given, *folders(tmp_path)])

    for _ in range(2):  # the second time the complete run is shown
        result = call()
        assert result.exit_code == 1, result.output
        assert "failed-samples" in result.output
        assert "ValueError: this digit is too odd" in result.output
    (summary,) = Store(tmp_path / "results").summaries()
    samples = Store(tmp_path / "results").folder(summary.manifest).samples().set_index("index")
    assert not samples.loc[0, "robust"]
    assert not samples.loc[0, "eight_bit_robust"]
    assert samples["robust"].sum() > 0
    command = ["verify", f"{SUITE['name']}/failing", "--suite", str(suite)]
    given = [*command, "--candidate", str(folder), *folders(tmp_path)[:2]]
    verified = CliRunner().invoke(main, given)
    assert verified.exit_code == 0, verified.output
    assert ("1 failed sample cannot be confirmed" in verified.output) == (least > 0)


@pytest.mark.parametrize(
    ("known", "least", "most", "flag"),
    [(1, 0, 0, "failed-samples"), (20, 0.1, 1, "failed-checks")],
    ids=["clean", "far-from-clean"],
)
def test_full_checks_leave_out_failed_samples_and_say_what_ended_them(
    suite: Path,
    tmp_path: Path,
    write_submission: Callable[..., Path],
    known: int,
    least: float,
    most: float,
    flag: str,
) -> None:
    """The candidate fails on the first digit; or on what is far from all, as only checks are."""
    arguments = {"least": least, "most": most, "known": known}
    folder = write_submission("failing", architecture="model:Failing", architecture_args=arguments)
    (folder / "model.py").write_text(FAILING)
    command = ["run", "--suite", str(suite), "--candidate", str(folder), "--flags", "full"]
    result = CliRunner().invoke(main, [*command, *folders(tmp_path)])
    assert result.exit_code == int(flag == "failed-samples"), result.output
    (summary,) = Store(tmp_path / "results").summaries()
    assert summary.flags_checked == "full"
    found = {each.name for each in summary.flags} & {"failed-samples", "failed-checks"}
    assert found == {flag}, result.output
    assert "this digit is too odd" in result.output


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["SIGTERM", "Ctrl-C"]
)
@pytest.mark.parametrize("command", ["run", "sweep"])
def test_a_stopped_command_says_how_to_go_on(
    suite: Path,
    tmp_path: Path,
    write_submission: Callable[..., Path],
    command: str,
    number: signal.Signals,
    code: int,
) -> None:
    folder = write_submission("slow")
    (folder / "model.py").write_text(SLOW)
    given = ["--candidate", str(folder)]
    if command == "sweep":
        given = ["--accurate", str(folder), "--robust", "digits-robust", "--alphas", "0,0.5,1"]
    given = [command, "--suite", str(suite), *given, *folders(tmp_path)]
    given += ["--executor", "local:2"]
    log = tmp_path / "log"
    driver = forked(given, log)
    children: list[psutil.Process] = []
    end = time.monotonic() + 120
    while not children and driver.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
        children = (
            [each for each in driver.process.children() if driver.process.is_running()]
            if list(tmp_path.rglob("manifest.json"))
            else []
        )
    time.sleep(0.2)
    driver.process.send_signal(number)
    assert driver.wait(60) == code, log.read_text()
    assert log.read_text().splitlines()[-1] == "stopped; the same command goes on"
    assert "Traceback" not in log.read_text()
    assert not psutil.wait_procs(children, 10)[1]
    assert forked(given, log).wait(240) == 0, log.read_text()


def small_disk(folder: Path) -> bool:
    """Mount a file system of 96 KB, if this process may."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=96k", "bench-small", str(folder)]
    return os.geteuid() == 0 and subprocess.run(mount, capture_output=True).returncode == 0


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    if not small_disk(folder):
        pytest.skip("only root can mount a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_ends_in_one_line_and_goes_on(
    suite: Path, disk: Path, tmp_path: Path, write_submission: Callable[..., Path]
) -> None:
    taken = disk / "taken"
    with taken.open("wb") as file:  # leave room for a manifest, and no more
        file.write(bytes(64 * 1024))
    command = ["run", "--suite", str(suite), "--candidate", str(write_submission())]
    given = [*command, "--results-dir", str(disk / "results"), "--report-dir", f"{tmp_path}/r"]
    result = CliRunner().invoke(main, given)
    assert result.exit_code == 1, result.output
    (line,) = [each for each in result.output.splitlines() if each.startswith("error:")]
    assert str(disk / "results") in line
    assert "No space left on device; free some space, then the same command goes on" in line
    assert not list(disk.rglob("*.tmp"))
    taken.unlink()
    subprocess.run(["mount", "-o", "remount,size=4m", str(disk)], check=True)
    assert CliRunner().invoke(main, given).exit_code == 0


def test_a_write_that_finds_no_room_is_one_line(
    suite: Path,
    tmp_path: Path,
    write_submission: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As above, where nothing can be mounted: the disk is full from the fifth file on."""
    calls = 0
    sync = os.fsync

    def full(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls > 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    given = ["run", "--suite", str(suite), "--candidate", str(write_submission())]
    given += folders(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        result = CliRunner().invoke(main, given)
    assert result.exit_code == 1, result.output
    assert "No space left on device; free some space" in result.output
    assert "Traceback" not in result.output
    assert CliRunner().invoke(main, given).exit_code == 0
