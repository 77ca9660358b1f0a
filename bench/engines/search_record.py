"""The records of the samples that a search has finished."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bench.attacks import AttackPlan
from bench.engines.agenda import Sample
from bench.engines.engine import Task
from bench.store.records import AttackBlock, Attempts, Margins, Witnesses


@dataclass
class Fill:
    """How full the batch was.

    Attributes:
        filled: places with an item, added up over steps.
        slots: places, likewise.
    """

    filled: int = 0
    slots: int = 0

    def add(self, filled: int, slots: int) -> None:
        """Count some steps."""
        self.filled += filled
        self.slots += slots

    def taken(self) -> dict[str, int]:
        """Return the counts for a block's record, and count from 0 again."""
        counts = {"filled_steps": self.filled, "slot_steps": self.slots}
        self.filled = self.slots = 0
        return counts


@dataclass(frozen=True)
class Finding:
    """What broke a sample.

    Attributes:
        witness: (C, H, W) the adversarial image.
        prediction: its class.
    """

    witness: Tensor
    prediction: int


def search_block(
    task: Task,
    plan: AttackPlan,
    samples: Sequence[Sample],
    found: Mapping[int, Finding],
    key: str,
    seconds: float,
    record: Mapping[str, float | str],
    margins: Mapping[int, tuple[float, float]],
) -> AttackBlock:
    """Return a block of the attempts on finished samples, and of their witnesses.

    Args:
        samples: those that the attack has finished.
        found: what broke samples, by their rows.
        key: of the block.
        seconds: since the last one; shared out by the steps that were made.
        record: of the engine; what the reference would have used is added to it.
        margins: of samples at the start and at best, by their rows; empty: not measured.
    """
    n = len(samples)
    passes = plan.attack.passes
    index = task.indices[torch.tensor([sample.row for sample in samples])].numpy()
    broken = np.array([sample.broke is not None for sample in samples])
    steps = np.array([sum(sample.steps.values()) for sample in samples], dtype=np.float64)
    attempts = Attempts(
        index=index,
        attack=np.full(n, plan.name),
        outcome=np.where(broken, "broken", "survived"),
        iteration=np.array([_iteration(plan, sample) for sample in samples]),
        forward_passes=steps * passes.forward,
        backward_passes=steps * passes.forward_backward,
        seconds=seconds * steps / max(float(steps.sum()), 1.0),
    )
    findings = [found[sample.row] for sample in samples if sample.broke is not None]
    witnesses = None
    if findings:
        witnesses = Witnesses(
            index=index[broken],
            attack=np.full(len(findings), plan.name),
            prediction=np.array([each.prediction for each in findings]),
            images=torch.stack([each.witness for each in findings]).numpy(),
        )
    joined = {**record, **_reference_passes(plan, samples)}
    measured = [sample.row for sample in samples if sample.row in margins]
    return AttackBlock(
        key=key,
        seconds=seconds,
        attempts=attempts,
        witnesses=witnesses,
        record=joined,
        margins=None if not measured else _margins(task, measured, margins),
    )


def _margins(
    task: Task, rows: Sequence[int], margins: Mapping[int, tuple[float, float]]
) -> Margins:
    start, best = np.array([margins[row] for row in rows]).T
    return Margins(index=task.indices[torch.tensor(rows)].numpy(), start=start, best=best)


def _iteration(plan: AttackPlan, sample: Sample) -> int:
    """Return the step, counted over all its rounds, at which a sample broke; -1 if it did not."""
    if sample.broke is None:
        return -1
    return sample.broke * plan.attack.steps + sample.steps[sample.broke]


def _reference_passes(plan: AttackPlan, samples: Sequence[Sample]) -> dict[str, int]:
    """Return what the reference would have used on the same samples."""
    forward = gradient = 0
    for sample in samples:
        rounds = plan.items if sample.broke is None else sample.broke + 1
        reference = plan.reference_passes([1] * rounds, sum(sample.steps.values()))
        forward += reference.forward
        gradient += reference.forward_backward
    return {"reference_forward_passes": forward, "reference_backward_passes": gradient}
