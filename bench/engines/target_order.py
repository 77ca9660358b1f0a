"""The wrong classes of samples, nearest boundary first; each sample's are worked out once."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.attacks.target_ranking import RANKED_CLASSES, nearest_wrong_classes
from bench.engines.acceleration import Accelerated
from bench.engines.engine import AttackTask, batches


class TargetOrder:
    """Ranks the classes of a task's samples; see `bench.engines.search.Rank`."""

    def __init__(self, task: AttackTask, fast: Accelerated, known: dict[int, Tensor]) -> None:
        """Begin.

        Args:
            task: the samples.
            fast: the candidate.
            known: classes (at most `RANKED_CLASSES`,) by index; what is worked out is added.
        """
        self._task = task
        self._fast = fast
        self._known = known

    def __call__(self, rows: Tensor, count: int) -> Tensor:
        """Return (n, at most `count`) int64 for rows (n,)."""
        task = self._task
        indices = task.indices[rows].tolist()
        unknown = rows[
            torch.tensor([index not in self._known for index in indices], dtype=torch.bool)
        ]
        for part in batches(unknown, task.batch_size):
            images = task.images[part].to(task.device)
            labels = task.labels[part].to(task.device)
            norm = task.threat_model.norm
            classes = nearest_wrong_classes(self._fast.model, images, labels, norm).cpu()
            self._known |= dict(zip(task.indices[part].tolist(), classes, strict=True))
        most = min(RANKED_CLASSES, task.classes - 1, count)
        return torch.stack([self._known[index] for index in indices])[:, :most]
