"""The stage of an audit that predicts the test set without an attack.

An image on which the candidate raises an error has no answer, which is wrong, as in a run.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from torch import Tensor

from bench.auditing.job import BATCH, Job
from bench.auditing.records import Clean
from bench.candidates import Candidate
from bench.data import Dataset
from bench.decision import classes_of
from bench.engines.answering import in_parts
from bench.executors.worker import is_at_fault
from bench.memory.out_of_memory import ImagesAtOnce
from bench.store.selection import permutation

CLEAN_SHARE = 0.3
"""Share of the budget that predictions of all images may take; otherwise only some are made."""
PART_SHARE = 0.1
"""Share of the budget that these take."""
TIMED_IMAGES = 32
FARTHEST = 1e6
"""The lead of an answer that is not finite, and minus that of none."""


def predict_clean(job: Job, candidate: Candidate, dataset: Dataset, device: torch.device) -> Clean:
    """Predict the whole test set, or as much as a share of the budget pays.

    Raises:
        Exception: the candidate raises errors on so many images that it is at fault itself; its
            own.
    """
    start, size = time.monotonic(), len(dataset)
    order = permutation(size, job.order.seed)
    first = order[:TIMED_IMAGES]
    leads_of(candidate, dataset, first[:4], device)  # the first pass is slower
    timed = time.monotonic()
    leads_of(candidate, dataset, first, device)
    each = (time.monotonic() - timed) / len(first)
    affordable, note = size, ""
    if each * size > CLEAN_SHARE * job.budget:
        affordable = min(max(int(PART_SHARE * job.budget / each), len(first)), size)
        note = (
            f"all {size} would take about {each * size:.0f} s of the budget of {job.budget:.0f} s"
        )
    chosen = list(range(size)) if affordable == size else order[:affordable]
    right: list[bool] = []
    margins: list[float] = []
    failed: list[int] = []
    for begin in range(0, len(chosen), BATCH):
        part = chosen[begin : begin + BATCH]
        leads, hits, unanswered = leads_of(candidate, dataset, part, device)
        right += hits.tolist()
        margins += leads.tolist()
        failed += [row for row, has_none in zip(part, unanswered.tolist(), strict=True) if has_none]
        if is_at_fault(len(failed), len(right)):
            _answer(candidate, dataset, failed[-1:], device)  # raises the error again
    return Clean(
        population=size,
        indices=dataset.indices[torch.tensor(chosen)].tolist(),
        right=right,
        margins=margins,
        failed=dataset.indices[torch.tensor(failed, dtype=torch.int64)].tolist(),
        seconds=time.monotonic() - start,
        note=note,
    )


def leads_of(
    candidate: Candidate, dataset: Dataset, rows: Sequence[int], device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Return by how much the right class leads, whether it wins, and whether an error was raised.

    All are (n,), the last two bool.
    """

    def answered(part: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        leads, hits = _answer(candidate, dataset, part.tolist(), device)
        return leads, hits, torch.zeros(len(part), dtype=torch.bool)

    def without(part: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        none = torch.zeros(len(part), dtype=torch.bool)
        return torch.full((len(part),), -FARTHEST), none, ~none

    found = in_parts(ImagesAtOnce(len(rows)), torch.tensor(rows), answered, without)
    leads, hits, failed = (torch.cat(each) for each in zip(*found, strict=True))
    return leads, hits, failed


@torch.no_grad()
def _answer(
    candidate: Candidate, dataset: Dataset, rows: Sequence[int], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return the leads of the right classes (n,), and whether they win (n,), by one pass."""
    chosen = torch.tensor(rows)
    logits = candidate.module(dataset.images[chosen].to(device)).detach().float().cpu()
    labels = dataset.labels[chosen]
    own = logits.gather(1, labels[:, None]).squeeze(1)
    others = logits.scatter(1, labels[:, None], -torch.inf).amax(dim=1)
    leads = torch.nan_to_num(own - others, nan=-FARTHEST, posinf=FARTHEST, neginf=-FARTHEST)
    return leads, classes_of(logits) == labels
