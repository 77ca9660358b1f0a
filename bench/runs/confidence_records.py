"""Record how confident a candidate is on the images that a run was about."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from bench.attacks.expectation import expectation
from bench.decision import answered
from bench.engines import Task
from bench.engines.answering import in_parts
from bench.engines.prediction import DECIDING_DRAWS, Purpose, own_randomness
from bench.memory.out_of_memory import ImagesAtOnce
from bench.precision import tensor_cores
from bench.store.records import FloatArray
from bench.store.tables import Tables


def with_confidences(task: Task, tables: Tables) -> Tables:
    """Add to a run's tables the probabilities of the recorded classes and of the labels.

    This takes one pass over each clean image and each witness; for a randomized candidate it takes
    the mean over as many draws as its predictions do. The columns are `clean_confidence` and
    `adversarial_confidence`, the probability of the class that was recorded for the image, and
    `clean_label_probability` and `adversarial_label_probability`. They are null where the logits
    are not finite, and those of the adversarial image where there is none.
    """
    row_of = {index: row for row, index in enumerate(task.indices.tolist())}
    samples = tables.samples.copy()
    index = samples["index"].tolist()
    rows = torch.tensor([row_of[value] for value in index], dtype=torch.int64)
    classes = torch.tensor(samples["clean_prediction"].tolist(), dtype=torch.int64)
    found = _probabilities(task, task.images, rows, classes, task.labels[rows])
    samples["clean_confidence"], samples["clean_label_probability"] = found
    witnesses = tables.witnesses
    if witnesses is not None:
        broken = torch.tensor([row_of[value] for value in witnesses.index.tolist()])
        found = _probabilities(
            task,
            torch.from_numpy(witnesses.images),
            torch.arange(len(broken)),
            torch.from_numpy(witnesses.prediction.astype(np.int64)),
            task.labels[broken],
        )
        names = ("adversarial_confidence", "adversarial_label_probability")
        for name, values in zip(names, found, strict=True):
            known = dict(zip(witnesses.index.tolist(), values.tolist(), strict=True))
            samples[name] = np.array([known.get(value, math.nan) for value in index])
    return replace(tables, samples=samples)


def _probabilities(
    task: Task, images: Tensor, rows: Tensor, classes: Tensor, labels: Tensor
) -> tuple[FloatArray, FloatArray]:
    """Return the probabilities (n,) of the classes and of the labels; NaN where there is no answer.

    There is none either where the candidate raises an error.

    Args:
        images: (N, C, H, W).
        rows: (n,) which of them.
        classes, labels: (n,); the probability of a class below 0 is NaN.
    """
    model = expectation(task.module, DECIDING_DRAWS) if task.randomized else task.module

    def probabilities_of(some: Tensor) -> Tensor:
        with (
            torch.no_grad(),
            tensor_cores(False),
            own_randomness(task, Purpose.DECISION, len(some)),
        ):
            logits = model(images[rows[some]].to(task.device, copy=True)).cpu()
        probabilities = torch.softmax(logits.double(), dim=1)
        asked = torch.stack((classes[some], labels[some]), dim=1)
        both = probabilities.gather(1, asked.clamp_min(0))
        unknown = (asked < 0) | ~answered(logits).unsqueeze(1)
        return both.masked_fill(unknown, math.nan)

    parts = in_parts(
        ImagesAtOnce(task.batch_size),
        torch.arange(len(rows)),
        probabilities_of,
        lambda some: torch.full((len(some), 2), math.nan, dtype=torch.float64),
    )
    found = torch.cat(parts).numpy() if parts else np.zeros((0, 2))
    return found[:, 0], found[:, 1]
