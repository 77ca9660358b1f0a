"""The checks of `--flags full`, done by a worker: they attack a few dozen samples."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from bench.engines import Task, Trials
from bench.engines.engine import without_samples
from bench.errors import FOREIGN_ERRORS, BenchError, EvaluationError, raised
from bench.executors.parcels import pack_samples, with_samples
from bench.executors.stage import Executor, Setup, Worker
from bench.flags.failures import failed_checks, failed_indices
from bench.memory.out_of_memory import is_out_of_memory
from bench.runs.kind import RunnableKind
from bench.store.power import AttackPower
from bench.store.summary import Flag, Summary
from bench.store.tables import Tables

Found = TypeVar("Found")


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
        power, problem = _tried(lambda: self.kind.attack_power(task))
        flags, other = _tried(lambda: self.kind.extra_flags(task, self.tables, self.trials))
        ended = [failed_checks(each) for each in dict.fromkeys([problem, other]) if each]
        return {
            "flags": [flag.model_dump(mode="json") for flag in [*(flags or []), *ended]],
            "power": None if power is None else power.model_dump(mode="json"),
        }


def _tried(check: Callable[[], Found]) -> tuple[Found | None, str]:
    """Return what checks find, and the error of the candidate that ended them, if one did."""
    try:
        return check(), ""
    except EvaluationError as error:  # the candidate failed on too many of their images
        return None, str(error)
    except BenchError:
        raise
    except FOREIGN_ERRORS as error:
        if is_out_of_memory(error):
            raise
        return None, raised(error)


def full_checks(
    kind: RunnableKind,
    task: Task,
    summary: Summary,
    tables: Tables,
    trials: Trials | None,
    executor: Executor,
) -> tuple[list[Flag], AttackPower | None]:
    """Return flags that need attacks of their own, and which planted weaknesses attacks find.

    Args:
        kind: of the run.
        task: all its samples; those on which the candidate raised an error are left out.
        summary: of the finished run.
        tables: of the finished run.
        trials: images of other candidates that may be tried.
        executor: one of its workers does it.
    """
    failed = torch.tensor(failed_indices(summary, tables), dtype=task.indices.dtype)
    task = task.part(~torch.isin(task.indices, failed))
    checks = FullChecks(kind, pack_samples(task), tables, trials)
    found = executor.ask(without_samples(task), checks, _found)
    power = found["power"]
    return (
        [Flag.model_validate(each) for each in found["flags"]],
        None if power is None else AttackPower.model_validate(power),
    )


def _found(made: dict[str, Any]) -> dict[str, Any]:
    return made
