"""The checks of `--flags full`, done by a worker: they attack a few dozen samples."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

from bench.engines import Task, Trials
from bench.engines.engine import without_samples
from bench.executors.parcels import pack_samples, with_samples
from bench.executors.stage import Executor, Setup, Worker
from bench.runs.kind import RunnableKind
from bench.store.power import AttackPower
from bench.store.summary import Flag
from bench.store.tables import Tables


@dataclass(frozen=True, eq=False)
class FullChecks(Setup):
    """The checks of one run.

    Attributes:
        kind: of the run.
        samples: arrays of all its samples.
        tables: of the run.
        trials: images that checks may try.
    """

    kind: RunnableKind
    samples: Mapping[str, Any]
    tables: Tables
    trials: Trials | None

    @property
    def key(self) -> Hashable:
        """Checks are made once, so that each is a setup of its own."""
        return "full checks", id(self)

    def make(self, worker: Worker) -> dict[str, Any]:
        """Return the flags raised and the power of the attacks, as plain data."""
        task = with_samples(worker.task, self.samples)
        power = self.kind.attack_power(task)
        raised = self.kind.extra_flags(task, self.tables, self.trials)
        return {
            "flags": [flag.model_dump(mode="json") for flag in raised],
            "power": None if power is None else power.model_dump(mode="json"),
        }


def full_checks(
    kind: RunnableKind, task: Task, tables: Tables, trials: Trials | None, executor: Executor
) -> tuple[list[Flag], AttackPower | None]:
    """Return flags that need attacks of their own, and which planted weaknesses attacks find.

    Args:
        kind: of the run.
        task: all its samples.
        tables: of the finished run.
        trials: images of other candidates that may be tried.
        executor: one of its workers does it.
    """
    checks = FullChecks(kind, pack_samples(task), tables, trials)
    found = executor.ask(without_samples(task), checks, _found)
    power = found["power"]
    return (
        [Flag.model_validate(each) for each in found["flags"]],
        None if power is None else AttackPower.model_validate(power),
    )


def _found(made: dict[str, Any]) -> dict[str, Any]:
    return made
