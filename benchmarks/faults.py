"""Runs in which processes are killed or held at random moments: their records are as undisturbed.

    python benchmarks/faults.py [--runs 100] [--ray-share 0.3] [--first 0]

A run is a command on digits: an evaluation, a certification, a sweep or express, on two workers of
this machine or on a Ray cluster of two nodes. While it works, its driver, its workers, or the
raylet of the second node get SIGKILL or SIGTERM, or SIGSTOP for a while. The same command is given
again until it ends with exit code 0. Then every record has to be equal to that of the undisturbed
run: none lost, none double, and no process left behind.

Moments, processes and signals follow from the number of the run. The commands are forked from this
process, which has imported everything: that saves seconds each time, and changes nothing else.
"""

from __future__ import annotations

import importlib
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import click
import numpy as np
import pandas as pd
import psutil
import yaml

from bench.cli import main as bench_main
from bench.store import RunFolder, Store
from tests.executors.cluster import Cluster, environment

RESULTS = Path(__file__).parent / "results" / "faults.txt"
PROTOCOLS = {
    "standard": {
        "attacks": [
            {"name": "apgd-ce", "parameters": {"steps": 20}},
            {"name": "apgd-t", "parameters": {"steps": 10, "targets": 2}},
            {"name": "square", "parameters": {"queries": 100}},
        ]
    },
    "certified": {
        "certification": {
            "selection_samples": 50,
            "noise_samples": 1500,
            "failure_probability": 0.001,
        }
    },
}
SUITES = {"linf": ("Linf", 0.08), "l2": ("L2", 0.5)}
COMMANDS = {
    "evaluation": ("run", "linf", "--candidate", "digits-robust", "--protocol", "standard"),
    "express": ("run", "linf", "--candidate", "digits-robust", "--protocol", "express"),
    "certification": ("run", "l2", "--candidate", "digits-gaussian", "--protocol", "certified"),
    "sweep": (
        *("sweep", "linf", "--accurate", "digits-standard", "--robust", "digits-robust"),
        *("--alphas", "0,0.5,1", "--steps", "4", "--targets", "2"),
    ),
}
IMPORTED = (
    "candidates.named.model_files",
    "cli.report",
    "cli.run",
    "cli.sweep",
    "executors.here",
    "executors.ray_cluster",
    "pages.build",
    "runs.many",
    "runs.sweep",
)
"""Modules that commands import when they need them."""
SAMPLES = 24
MOST_FAULTS = 6
"""In one run; after them it ends undisturbed."""
MOST_SECONDS = 900.0
"""A command that takes longer hangs."""
SECONDS_TO_VANISH = 30.0
STOPPED = (-signal.SIGKILL, -signal.SIGTERM, 128 + signal.SIGTERM)


@dataclass
class Outcome:
    """What came of a run.

    Attributes:
        number, kind, executor: which run.
        faults: signals and processes, in order.
        commands: how often the command was given.
        seconds: in all.
        problem: what is wrong; empty if the records are equal.
    """

    number: int
    kind: str
    executor: str
    faults: list[str] = field(default_factory=list)
    commands: int = 0
    seconds: float = 0.0
    problem: str = ""


class Problem(Exception):
    """Something that may not happen under faults."""


@click.command()
@click.option("--runs", default=100, show_default=True)
@click.option("--first", default=0, show_default=True, help="Number of the first run.")
@click.option("--ray-share", default=0.3, show_default=True, help="Share of runs on Ray.")
@click.option("--out", type=click.Path(path_type=Path), default=RESULTS, show_default=True)
def main(runs: int, first: int, ray_share: float, out: Path) -> None:
    """Do the runs, print and write a table; exit code 1 if a record differs."""
    os.environ.update(environment())
    for name in IMPORTED:
        importlib.import_module(f"bench.{name}")
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory(prefix="bench-faults-") as folder:
        for outcome in disturbed_runs(range(first, first + runs), ray_share, Path(folder)):
            outcomes.append(outcome)
            click.echo(_line(outcome))
            out.write_text(table(outcomes))
    click.echo(table(outcomes))
    sys.exit(1 if any(each.problem for each in outcomes) else 0)


def disturbed_runs(numbers: Sequence[int], ray_share: float, folder: Path) -> Iterator[Outcome]:
    """Yield the outcome of each run."""
    write_suites(folder)
    undisturbed: dict[str, tuple[dict[str, pd.DataFrame], float]] = {}
    with ExitStack() as at_end:
        cluster: Cluster | None = None
        for number in numbers:
            draw = random.Random(number)
            # A fixed share of Ray, spread evenly; all kinds in turn.
            on_ray = int((number + 1) * ray_share + 0.5) > int(number * ray_share + 0.5)
            kind = list(COMMANDS)[number % len(COMMANDS)]
            if kind not in undisturbed:
                undisturbed[kind] = _undisturbed(kind, folder)
            expected, seconds = undisturbed[kind]
            if on_ray and cluster is None:
                (folder / "ray").mkdir()
                cluster = Cluster(folder / "ray")
                at_end.callback(cluster.stop)
                cluster.add()
            outcome = Outcome(number, kind, "ray" if on_ray else "local:2")
            started = time.monotonic()
            try:
                results = folder / f"results-{number}"
                _disturbed(outcome, draw, results, folder, seconds, cluster if on_ray else None)
                compare(expected, records(results))
            except Problem as problem:
                outcome.problem = str(problem)
            outcome.seconds = time.monotonic() - started
            yield outcome


def write_suites(folder: Path) -> None:
    """Write the suites, with budgets so small that a run takes seconds."""
    for name, (norm, eps) in SUITES.items():
        suite = {
            "name": f"faults-{name}",
            "version": 1,
            "title": "Faults",
            "data": "digits",
            "n_examples": SAMPLES,
            "threat_model": {"norm": norm, "eps": eps},
            "protocols": {
                name: protocol
                for name, protocol in PROTOCOLS.items()
                if name != "certified" or norm == "L2"
            },
        }
        (folder / f"{suite['name']}.yaml").write_text(yaml.safe_dump(suite))


def arguments(kind: str, executor: str, results: Path, folder: Path) -> list[str]:
    """Return what comes after `bench`."""
    command, suite, *rest = COMMANDS[kind]
    return [
        *(command, "--suite", str(folder / f"faults-{suite}.yaml"), *rest),
        *("--executor", executor, "--results-dir", str(results)),
        *("--report-dir", str(folder / "reports"), "--device", "cpu"),
    ]


def _undisturbed(kind: str, folder: Path) -> tuple[dict[str, pd.DataFrame], float]:
    """Return the records of an undisturbed run in one process, and its seconds."""
    results = folder / f"undisturbed-{kind}"
    log = folder / f"undisturbed-{kind}.log"
    began = time.monotonic()
    driver = forked(arguments(kind, "local:1", results, folder), log)
    code = driver.wait(MOST_SECONDS)
    if code != 0:
        raise RuntimeError(f"the undisturbed run failed with exit code {code}: {log.read_text()}")
    return records(results), time.monotonic() - began


def _disturbed(
    outcome: Outcome,
    draw: random.Random,
    results: Path,
    folder: Path,
    seconds: float,
    cluster: Cluster | None,
) -> None:
    """Give a command again and again until it ends with exit code 0.

    Raises:
        Problem: it ends in another way than it may, or leaves processes behind.
    """
    executor = "local:2" if cluster is None else f"ray:{cluster.address}"
    log = folder / f"run-{outcome.number}.log"
    left = draw.randint(1, MOST_FAULTS)
    while True:
        outcome.commands += 1
        driver = forked(arguments(outcome.kind, executor, results, folder), log)
        known: dict[int, psutil.Process] = {}
        began = time.monotonic()
        moment = began + draw.uniform(0, 1.2 * seconds)
        held: list[tuple[float, psutil.Process]] = []
        while driver.is_running() and (code := driver.poll()) is None:
            now = time.monotonic()
            if now - began > MOST_SECONDS:
                driver.end()
                raise Problem(f"the command did not end within {MOST_SECONDS:g} s")
            _look(known, driver.process)
            for end, process in list(held):
                if now >= end:
                    _send(process, signal.SIGCONT)
                    held.remove((end, process))
            if left and now >= moment:
                left -= 1
                moment = now + draw.uniform(0, 0.5 * seconds)
                outcome.faults.append(_fault(draw, driver.process, cluster, held, now))
            time.sleep(0.02)
        for _, process in held:
            _send(process, signal.SIGCONT)
        code = driver.wait(1)
        if cluster is not None:
            _repair(cluster)
        _check_gone(known)
        said = log.read_text()
        if code == 0:
            return
        # A worker, or the cluster, that is lost too often ends a command in one line.
        if code not in STOPPED and not (code == 1 and "goes on" in said):
            raise Problem(f"exit code {code}: {said[-500:]}")
        if "Traceback" in said:
            raise Problem(f"a traceback: {said[-2000:]}")


def _fault(
    draw: random.Random,
    driver: psutil.Process,
    cluster: Cluster | None,
    held: list[tuple[float, psutil.Process]],
    now: float,
) -> str:
    """Do something to a process; return what."""
    victims = {"driver": [driver]}
    if cluster is None:
        victims["worker"] = _children(driver)
    else:
        victims["worker"] = [each for node in cluster.nodes for each in node.actors]
        victims["node"] = [node.raylet for node in cluster.nodes[1:] if node.lives]
    role = draw.choice(sorted(name for name, found in victims.items() if found))
    process = draw.choice(sorted(victims[role], key=lambda each: each.pid))
    number = draw.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP])
    _send(process, number)
    if number == signal.SIGSTOP:
        held.append((now + draw.uniform(0.1, 3.0), process))
    return f"{number.name} {role}"


def _repair(cluster: Cluster) -> None:
    """Start another second node if the cluster has lost its own."""
    for node in cluster.nodes[1:]:
        if not node.lives:
            cluster.remove(node)
    if len(cluster.nodes) < 2:
        cluster.add()


class Driver:
    """A command in a process that was forked from this one."""

    def __init__(self, pid: int) -> None:
        self.process = psutil.Process(pid)
        self._code: int | None = None

    def is_running(self) -> bool:
        """Return whether it has not been waited for."""
        return self._code is None

    def poll(self) -> int | None:
        """Return its exit code, negative for a signal; None while it runs."""
        if self._code is None:
            pid, status = os.waitpid(self.process.pid, os.WNOHANG)
            if pid:
                self._code = os.waitstatus_to_exitcode(status)
        return self._code

    def wait(self, seconds: float) -> int:
        """Return its exit code; end it if it runs on for so long."""
        end = time.monotonic() + seconds
        while (code := self.poll()) is None:
            if time.monotonic() > end:
                self.end()
            time.sleep(0.02)
        return code

    def end(self) -> None:
        """Kill it."""
        _send(self.process, signal.SIGKILL)


def forked(given: Sequence[str], log: Path) -> Driver:
    """Start `bench` with these arguments; its output goes to the end of a file."""
    pid = os.fork()
    if pid:
        return Driver(pid)
    code = 1
    try:
        os.setsid()
        with log.open("ab", buffering=0) as output:
            for stream in (1, 2):
                os.dup2(output.fileno(), stream)
        # Whoever forks may have replaced them.
        sys.stdout, sys.stderr = (open(each, "w", closefd=False) for each in (1, 2))  # noqa: SIM115
        sys.argv = ["bench", *given]
        bench_main(list(given))
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def records(results: Path) -> dict[str, pd.DataFrame]:
    """Return all records of the only run below a folder, in an order of their own."""
    store = Store(results)
    folders = [store.folder(summary.manifest) for summary in store.summaries()]
    if len(folders) != 1:
        raise Problem(f"expected one complete run, got {len(folders)}")
    return records_of(folders[0])


def records_of(folder: RunFolder) -> dict[str, pd.DataFrame]:
    """Return all records of a complete run, in an order of their own."""
    samples, attempts = folder.samples(), folder.attempts().drop(columns=["seconds"])
    samples = samples.drop(columns=[name for name in samples if name == "witness"])
    found = {
        "samples": samples.sort_values(
            [name for name in ("alpha", "index") if name in samples], ignore_index=True
        ),
        "attempts": attempts.sort_values(
            [name for name in ("alpha", "attack", "index") if name in attempts], ignore_index=True
        ),
    }
    witnesses = folder.path / "witnesses.npz"
    if witnesses.exists():
        with np.load(witnesses) as arrays:
            index = arrays["index"]
        found["witnesses"] = pd.DataFrame({"index": np.sort(index)})
    return found


def compare(expected: dict[str, pd.DataFrame], found: dict[str, pd.DataFrame]) -> None:
    """Refuse records that differ.

    Raises:
        Problem: naming what differs.
    """
    if expected.keys() != found.keys():
        raise Problem(f"expected records of {sorted(expected)}; got {sorted(found)}")
    for name, table in expected.items():
        other = found[name]
        if len(table) != len(other):
            raise Problem(f"{name}: expected {len(table)} rows, got {len(other)}")
        try:
            pd.testing.assert_frame_equal(table, other, rtol=1e-4, atol=1e-6)
        except AssertionError as error:
            raise Problem(f"{name}: {' '.join(str(error).split())}") from error


def table(outcomes: Sequence[Outcome]) -> str:
    """Return the runs by kind and executor, then the faults."""
    lines = [
        f"{'run':<15}{'executor':<10}{'runs':>6}{'faults':>8}{'commands':>10}{'seconds':>9}"
        f"{'equal':>7}"
    ]
    groups: dict[tuple[str, str], list[Outcome]] = {}
    for each in outcomes:
        groups.setdefault((each.kind, each.executor), []).append(each)

    def total(some: Sequence[Outcome]) -> str:
        return (
            f"{len(some):>6}{sum(len(each.faults) for each in some):>8}"
            f"{sum(each.commands for each in some):>10}"
            f"{sum(each.seconds for each in some):>9.0f}{sum(not each.problem for each in some):>7}"
        )

    lines += [
        f"{kind:<15}{where:<10}{total(groups[kind, where])}" for kind, where in sorted(groups)
    ]
    lines += [f"{'all':<25}{total(outcomes)}", ""]
    faults = Counter(fault for each in outcomes for fault in each.faults)
    lines += [f"{fault:<25}{count:>6}" for fault, count in sorted(faults.items())]
    problems = [f"run {each.number}: {each.problem}" for each in outcomes if each.problem]
    return "\n".join([*lines, *problems]) + "\n"


def _line(outcome: Outcome) -> str:
    return (
        f"{outcome.number:>3} {outcome.kind} {outcome.executor}: {outcome.commands} commands, "
        f"{outcome.seconds:.0f} s, {', '.join(outcome.faults) or 'no fault'}: "
        f"{outcome.problem or 'equal'}"
    )


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _look(known: dict[int, psutil.Process], driver: psutil.Process) -> None:
    known.update({each.pid: each for each in _children(driver)})


def _check_gone(known: dict[int, psutil.Process]) -> None:
    """Refuse processes that outlive their driver."""
    _, alive = psutil.wait_procs(list(known.values()), SECONDS_TO_VANISH)
    if alive:
        for each in alive:
            _send(each, signal.SIGKILL)
        raise Problem(f"processes that the driver left behind: {alive}")


def _send(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return


if __name__ == "__main__":
    main()
