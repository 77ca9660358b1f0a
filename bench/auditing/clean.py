"""The stage of an audit that predicts the test set without an attack."""

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
from bench.memory.out_of_memory import with_as_many_as_fit
from bench.store.selection import permutation

CLEAN_SHARE = 0.3
"""Share of the budget that predictions of all images may take; otherwise only some are made."""
PART_SHARE = 0.1
"""Share of the budget that these take."""
TIMED_IMAGES = 32


def predict_clean(job: Job, candidate: Candidate, dataset: Dataset, device: torch.device) -> Clean:
    """Predict the whole test set, or as much as a share of the budget pays."""
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
    for begin in range(0, len(chosen), BATCH):
        leads, hits = leads_of(candidate, dataset, chosen[begin : begin + BATCH], device)
        right += hits.tolist()
        margins += leads.tolist()
    return Clean(
        population=size,
        indices=dataset.indices[torch.tensor(chosen)].tolist(),
        right=right,
        margins=margins,
        seconds=time.monotonic() - start,
        note=note,
    )


@torch.no_grad()
def leads_of(
    candidate: Candidate, dataset: Dataset, rows: Sequence[int], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return by how much the right class leads (n,), and whether it wins (n,) bool."""
    chosen = torch.tensor(rows)

    def answers(count: int) -> list[Tensor]:
        return [
            candidate.module(dataset.images[part].to(device)).detach().float().cpu()
            for part in torch.split(chosen, count)
        ]

    logits = torch.cat(with_as_many_as_fit(len(rows), answers))
    labels = dataset.labels[chosen]
    own = logits.gather(1, labels[:, None]).squeeze(1)
    others = logits.scatter(1, labels[:, None], -torch.inf).amax(dim=1)
    leads = torch.nan_to_num(own - others, nan=-1e6, posinf=1e6, neginf=-1e6)
    return leads, classes_of(logits) == labels
