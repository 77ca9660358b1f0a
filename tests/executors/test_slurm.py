"""The sbatch script: two nodes of Ray on this machine, under Slurm itself or in its place.

Slurm itself runs where `slurmctld` and `slurmd` are installed and this user is root. In its place
there are a `srun` that runs a step here, and a `scontrol` that knows two nodes with addresses of
the loopback network.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

pytest.importorskip("ray")
psutil = pytest.importorskip("psutil")

SCRIPT = Path(__file__).parents[2] / "examples" / "cluster" / "slurm.sbatch"
NODES = {"n1": "127.0.0.2", "n2": "127.0.0.3"}
SECONDS = 900.0
SECONDS_TO_END = 60.0
COMMAND = ["--suite", "digits-linf", "--candidate"]

SRUN = """#!/usr/bin/env bash
while [[ $1 == --* ]]; do
    [[ $1 == --output=* ]] && exec >>"${1#*=}" 2>&1
    shift
done
setsid "$@" &
step=$!
trap 'kill -TERM -- "-$step"' TERM
wait "$step"
wait "$step"
"""
SCONTROL = f"""#!/usr/bin/env bash
case "$1 $2" in
"show hostnames") printf '%s\\n' {" ".join(NODES)} ;;
"--oneliner show") case $4 in
    n1) echo "NodeName=n1 NodeAddr={NODES["n1"]} Port=1" ;;
    n2) echo "NodeName=n2 NodeAddr={NODES["n2"]} Port=1" ;;
    esac ;;
*) echo "$*" >>scontrol.log ;;
esac
"""
CONFIGURATION = """
ClusterName=here
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/none
CredType=cred/none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmdSpoolDir={folder}/spool-%n
StateSaveLocation={folder}/state
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
NodeName=n1 NodeHostname={host} NodeAddr={n1} Port={port_1} CPUs=1
NodeName=n2 NodeHostname={host} NodeAddr={n2} Port={port_2} CPUs=1
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@pytest.fixture
def environment(tmp_path: Path) -> Mapping[str, str]:
    """Variables with which `python`, `ray` and `bench` are those of this process."""
    programs = tmp_path / "environment" / "bin"
    programs.mkdir(parents=True)
    modules = {"python": "", "ray": "-m ray.scripts.scripts", "bench": "-m bench"}
    for name, module in modules.items():
        _write_program(programs / name, f'#!/bin/sh\nexec {sys.executable} {module} "$@"\n')
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "SLURM"))
    }
    return kept | {"OMP_NUM_THREADS": "1", "BENCH_ENVIRONMENT": str(programs.parent)}


def _write_program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def _wait(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not within {SECONDS:g} seconds: {what}"
        time.sleep(0.2)


def _assert_nothing_is_left(job: str) -> None:
    """Refuse processes of a job's Ray, and its folder; what is ending has a minute for it."""
    folder = f"/tmp/bench-ray-{job}"

    def left() -> list[str]:
        found = psutil.process_iter(["cmdline"])
        lines = [" ".join(each.info["cmdline"] or []) for each in found]
        return [line for line in lines if folder in line]

    deadline = time.monotonic() + SECONDS_TO_END
    while left() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert left() == []
    assert not Path(folder).exists()


class Instead:
    """Runs the script as Slurm would."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        programs = folder / "slurm"
        programs.mkdir()
        _write_program(programs / "srun", SRUN)
        _write_program(programs / "scontrol", SCONTROL)
        self.folder = folder
        self.job = str(os.getpid())
        self.log = folder / "job.log"
        self._jobs: list[subprocess.Popen[bytes]] = []
        self._environment = {
            **environment,
            "PATH": f"{programs}:{environment['PATH']}",
            "SLURM_JOB_ID": self.job,
            "SLURM_JOB_NODELIST": "n[1-2]",
            "SLURMD_NODENAME": "n1",
            "SLURM_CPUS_PER_TASK": "1",
        }

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a job."""
        with self.log.open("wb") as log:
            job = subprocess.Popen(
                ["bash", str(SCRIPT), *arguments],
                cwd=self.folder,
                env=self._environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._jobs.append(job)
        return job

    def stop(self) -> None:
        """End jobs that a test has left."""
        for job in self._jobs:
            job.terminate()
            job.wait(SECONDS)


@pytest.fixture
def instead(tmp_path: Path, environment: Mapping[str, str]) -> Iterator[Instead]:
    slurm = Instead(tmp_path, environment)
    yield slurm
    slurm.stop()


def test_shellcheck_finds_nothing() -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("needs shellcheck")
    done = subprocess.run(["shellcheck", str(SCRIPT)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_a_job_whose_time_is_over_goes_on_when_it_is_started_again(instead: Instead) -> None:
    command = [*COMMAND, "digits-robust", "--n-examples", "40"]
    job = instead.start(*command)
    _wait(
        lambda: list(instead.folder.glob("results/**/*.npz")) or job.poll() is not None,
        "the first block",
    )
    job.send_signal(signal.SIGUSR1)
    assert job.wait(SECONDS) == 0, instead.log.read_text()
    assert "the time is nearly over" in instead.log.read_text()
    assert (instead.folder / "scontrol.log").read_text() == f"requeue {instead.job}\n"
    assert not list(instead.folder.glob("results/**/run.json"))
    _assert_nothing_is_left(instead.job)

    job = instead.start(*command)
    assert job.wait(SECONDS) == 0, instead.log.read_text()
    assert "nodes joined" not in instead.log.read_text(), "some did not join"
    assert len(list(instead.folder.glob("results/**/run.json"))) == 1
    _assert_nothing_is_left(instead.job)


@pytest.mark.slow
def test_a_cancelled_job_leaves_nothing_behind(instead: Instead) -> None:
    job = instead.start(*COMMAND, "digits-standard", "--n-examples", "20")
    _wait(lambda: Path(f"/tmp/bench-ray-{instead.job}").exists(), "a node of Ray")
    job.send_signal(signal.SIGTERM)
    assert job.wait(SECONDS) == 143, instead.log.read_text()
    assert not (instead.folder / "scontrol.log").exists()
    _assert_nothing_is_left(instead.job)


@pytest.mark.slow
def test_the_exit_code_is_that_of_bench(instead: Instead) -> None:
    job = instead.start("--suite", "no-such-suite")
    assert job.wait(SECONDS) == 2, instead.log.read_text()
    assert "no-such-suite" in instead.log.read_text()
    _assert_nothing_is_left(instead.job)


@pytest.fixture
def slurm(tmp_path: Path, environment: Mapping[str, str]) -> Iterator[Mapping[str, str]]:
    """Slurm with two nodes on this machine; the variables with which its commands reach it."""
    programs = [shutil.which(each) for each in ("slurmctld", "slurmd", "sbatch", "scontrol")]
    if os.geteuid() != 0 or not all(programs):
        pytest.skip("needs Slurm, and root")
    sockets = [socket.create_server(("", 0)) for _ in range(3)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    path = tmp_path / "slurm.conf"
    path.write_text(
        CONFIGURATION.format(
            host=socket.gethostname().partition(".")[0],
            folder=tmp_path,
            port=ports[0],
            port_1=ports[1],
            port_2=ports[2],
            **NODES,
        )
    )
    variables = {**environment, "SLURM_CONF": str(path)}
    daemons = [["slurmctld", "-D", "-c"], *(["slurmd", "-D", "-N", name] for name in NODES)]
    running = []
    for daemon in daemons:
        running.append(
            subprocess.Popen(
                daemon, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
        )
        time.sleep(1)
    try:
        yield variables
    finally:
        for process in reversed(running):
            process.terminate()
        for process in reversed(running):
            process.wait(60)


@pytest.mark.slow
def test_slurm_runs_the_script(slurm: Mapping[str, str], tmp_path: Path) -> None:
    options = ["--parsable", "--nodes=2", "--cpus-per-task=1", "--time=30"]
    arguments = [*COMMAND, "digits-standard", "--n-examples", "20"]
    job = subprocess.run(
        ["sbatch", *options, str(SCRIPT), *arguments],
        cwd=tmp_path,
        env=slurm,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()

    def state() -> str:
        shown = subprocess.run(
            ["scontrol", "--oneliner", "show", "job", job],
            env=slurm,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        return shown.partition("JobState=")[2].split()[0]

    _wait(lambda: state() not in ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING"), "the job")
    log = (tmp_path / f"bench-{job}.log").read_text()
    assert state() == "COMPLETED", log
    assert "nodes joined" not in log, "some did not join"
    assert len(list(tmp_path.glob("results/**/run.json"))) == 1
    _assert_nothing_is_left(job)
