"""Adversarial images that are known already, tried on a candidate before any attack.

Images that broke another candidate, or an earlier state of this one, often break this one too. A
try costs one forward pass, an attack thousands; it counts as an attack named `witnesses`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from bench.attacks import inside
from bench.engines.engine import Task, Trials
from bench.engines.prediction import confirm, deciding_passes
from bench.memory.out_of_memory import ImagesAtOnce
from bench.store.records import AttackBlock, Attempts, Witnesses

WITNESSES = "witnesses"
NAME = f"00-{WITNESSES}"
"""The name of its blocks."""


def try_images(task: Task, trials: Trials, at_once: ImagesAtOnce | None = None) -> AttackBlock:
    """Try all images of a task's samples, in float32; `at_once` says how many in a pass.

    A sample is broken by its first image that is inside the ball and misclassified. The block's
    record says how many passes that saved: those that it took to find the images that broke a
    sample, less the tries.
    """
    start = time.perf_counter()
    row_of = {index: row for row, index in enumerate(task.indices.tolist())}
    chosen = [at for at, index in enumerate(trials.index.tolist()) if index in row_of]
    tried: dict[int, int] = {}
    found: dict[int, tuple[int, Tensor, int]] = {}
    saved = 0.0

    def predicted(part: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        rows = torch.tensor([row_of[index] for index in trials.index[part].tolist()])
        return part, rows, confirm(task, trials.images[part], task.labels[rows]).cpu()

    at_once = at_once or ImagesAtOnce(task.batch_size)
    answers = at_once.in_parts(torch.tensor(chosen, dtype=torch.int64), predicted)
    for part, rows, predictions in answers:
        images = trials.images[part]
        threat = task.threat_model
        good = inside(images, task.images[rows], threat.norm, threat.eps)
        broken = good & (predictions != task.labels[rows])
        for place, row in enumerate(rows.tolist()):
            if row not in found:
                tried[row] = tried.get(row, 0) + 1
                if bool(broken[place]):
                    saved += float(trials.passes[part[place]])
                    found[row] = (tried[row] - 1, images[place], int(predictions[place]))
    record = {"passes_saved": round(saved - deciding_passes(task) * sum(tried.values()))}
    return _block(task, tried, found, record, time.perf_counter() - start)


def _block(
    task: Task,
    tried: dict[int, int],
    found: dict[int, tuple[int, Tensor, int]],
    record: Mapping[str, float],
    seconds: float,
) -> AttackBlock:
    # A sample without images is settled too: there is nothing to try.
    rows = list(range(len(task.labels)))
    n = len(rows)
    passes = deciding_passes(task) * np.array([tried.get(row, 0) for row in rows], dtype=np.float64)
    attempts = Attempts(
        index=task.indices[rows].numpy(),
        attack=np.full(n, WITNESSES),
        outcome=np.array(["broken" if row in found else "survived" for row in rows], dtype=np.str_),
        iteration=np.array([found[row][0] if row in found else -1 for row in rows], dtype=np.int64),
        forward_passes=passes,
        backward_passes=np.zeros(n),
        seconds=seconds * passes / max(float(passes.sum()), 1.0),
    )
    witnesses = None
    if found:
        witnesses = Witnesses(
            index=task.indices[list(found)].numpy(),
            attack=np.full(len(found), WITNESSES),
            prediction=np.array([prediction for _, _, prediction in found.values()]),
            images=torch.stack([image for _, image, _ in found.values()]).numpy(),
        )
    return AttackBlock(
        key=NAME, seconds=seconds, attempts=attempts, witnesses=witnesses, record=dict(record)
    )
