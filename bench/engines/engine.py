"""What every engine takes and gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from bench.attacks import AttackPlan, plan_attack
from bench.candidates.mix import Mix
from bench.certification.smoothing import Smoothing
from bench.executors.progress import Progress
from bench.executors.stage import Executor
from bench.store.records import AttackBlock, Block, IntArray
from bench.suites import ThreatModel
from bench.suites.suite import AttackChoice


@dataclass(frozen=True)
class Trials:
    """Images to try before any attack; several may belong to one sample.

    Attributes:
        index: (m,) int64, places in the data set.
        images: (m, C, H, W) float32; those outside a sample's ball are tried in vain.
        passes: (m,) what it took to find them, a gradient's pass counted once.
    """

    index: Tensor
    images: Tensor
    passes: Tensor


@dataclass(frozen=True, kw_only=True)
class Task:
    """A candidate and samples; what is done with them is up to the kind of task.

    Attributes:
        module: images (n, C, H, W) in [0, 1] -> logits (n, K); on `device`, in eval mode.
        images: (N, C, H, W) float32 in [0, 1], on the CPU.
        labels: (N,) int64 in [0, K).
        indices: (N,) int64, the samples' places in the data set.
        classes: K.
        threat_model: norm and radius.
        seed: of every random draw.
        batch_size: samples in one pass.
        device: where passes run.
        randomized: whether two calls may give two answers; the mean over draws is then what counts.
    """

    module: nn.Module
    images: Tensor
    labels: Tensor
    indices: Tensor
    classes: int
    threat_model: ThreatModel
    seed: int
    batch_size: int
    device: torch.device
    randomized: bool = False

    def part(self, rows: Tensor | slice) -> Self:
        """Return the same for some of the samples, by their places (n,) within the task."""
        return replace(
            self, images=self.images[rows], labels=self.labels[rows], indices=self.indices[rows]
        )


@dataclass(frozen=True, kw_only=True)
class AttackTask(Task):
    """A candidate to attack.

    Attributes:
        attacks: in their order, each on the samples that stood the earlier ones.
        surrogate: a differentiable stand-in for `module`, on `device`; None: there is none.
        trials: images to try first; None: none.
        until_converged: whether what survives is attacked on with ever larger budgets.
        eps_curve: whether each sample's smallest perturbation is looked for at the end.
    """

    attacks: tuple[AttackChoice, ...]
    surrogate: nn.Module | None = None
    trials: Trials | None = None
    until_converged: bool = False
    eps_curve: bool = False


@dataclass(frozen=True, kw_only=True)
class CertificationTask(Task):
    """A smoothed classifier to certify.

    Attributes:
        smoothing: the noise under which `module` votes, and the number of draws.
        mix: what is certified instead of the vote: this mix, `module` voting for its robust base.
    """

    smoothing: Smoothing
    mix: Mix | None = None


AnyTask = TypeVar("AnyTask", bound=Task, contravariant=True)
SomeTask = TypeVar("SomeTask", bound=Task)


class Engine(Protocol[AnyTask]):
    """Works through many samples, block by block."""

    name: str
    precision: str
    """Precision of the search: float32, tf32 or bfloat16."""

    def default_batch_size(self, module: nn.Module, images: Tensor) -> int:
        """Return the number of samples in one pass where the user names none.

        Args:
            module: the candidate.
            images: (n, C, H, W) a few, on the module's device.
        """

    def settings(self, task: AnyTask) -> dict[str, Any]:
        """Return those of the engine's settings that decide the result, for the manifest."""

    def run(
        self,
        task: AnyTask,
        finished: Mapping[str, Any],
        report: Callable[[Progress], None],
        executor: Executor | None = None,
    ) -> Iterator[Block]:
        """Do the task, yielding each block as it is finished.

        Args:
            finished: blocks of an earlier, interrupted run by key; they are not done again.
            report: told how far the work is.
            executor: does the work; None: this process.
        """


GRADIENT_COST = 3.0
"""A forward-backward pass in forward passes, about; for estimates of time only."""


def survivor_costs(task: AttackTask) -> list[float]:
    """Return what each attack of a task costs on a sample that survives it, in forward passes."""
    return [survivor_cost(plan(task, attack)) for attack in task.attacks]


def survivor_cost(plan: AttackPlan) -> float:
    """Return what an attack costs on a sample that survives it, in forward passes."""
    passes = plan.most_passes
    return passes.forward + GRADIENT_COST * passes.forward_backward


def plan(task: Task, attack: AttackChoice) -> AttackPlan:
    """Return an attack of the task's protocol, made for its threat model and classes.

    Raises:
        InputError: the attack is unknown or its parameters are wrong.
    """
    return plan_attack(
        attack.name,
        attack.parameters,
        norm=task.threat_model.norm,
        eps=task.threat_model.eps,
        classes=task.classes,
    )


def batches(rows: Tensor, size: int) -> tuple[Tensor, ...]:
    """Cut `rows` (n,) into pieces of `size`, the last one shorter; none for no rows."""
    return torch.split(rows, size) if len(rows) else ()


def broken_rows(task: Task, block: AttackBlock) -> Tensor:
    """Return the places within the task of the samples that a block's attack broke."""
    if block.witnesses is None:
        return torch.empty(0, dtype=torch.int64)
    return torch.from_numpy(np.flatnonzero(np.isin(task.indices.numpy(), block.witnesses.index)))


def failure_record(index: IntArray, problem: str) -> dict[str, float | str]:
    """Return the engine's record of a sample on which the candidate raised an error."""
    return {f"failed on sample {index[0]}": problem}


def without_samples(task: SomeTask) -> SomeTask:
    """Return a task that holds no samples and no images to try."""
    empty = task.part(slice(0, 0))
    return replace(empty, trials=None) if isinstance(empty, AttackTask) else empty
