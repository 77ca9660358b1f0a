"""Record a mix's weights and its bases' confidence margins.

The paper's explanation of why a mix can be both (Bai et al., arXiv 2301.12554, section 3): a robust
base is more confident where it is right on clean images than where an attack made it wrong, so that
the accurate base may correct the one and cannot spoil the other.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.candidates import Candidate
from bench.candidates.mix import MixedClassifier, as_mix
from bench.decision import answered, classes_of
from bench.engines import Task
from bench.memory.out_of_memory import ImagesAtOnce
from bench.precision import tensor_cores
from bench.store.records import FloatArray
from bench.store.tables import Tables


def describe_mix(candidate: Candidate) -> dict[str, Any] | None:
    """Return the description of a mix for the manifest; None for another candidate."""
    mix = candidate.mix
    if mix is None:
        return None
    names = {role: base.name for role, base in candidate.bases.items()}
    return {
        "accurate": names.get("accurate"),
        "robust": names.get("robust"),
        "definitions": {role: base.definition_sha256 for role, base in candidate.bases.items()},
        "accurate_scale": mix.accurate_scale,
        "robust_scale": mix.robust_scale,
        "alpha_range": list(mix.alpha_range),
        "adaptive": mix.has_mixing_network,
        "bends_logits": mix.bends_logits,
    }


def with_mix_records(task: Task, tables: Tables) -> Tables:
    """Add to a run's tables the mix's weights on clean images and on witnesses.

    This takes one pass over each image. The columns are the weights `alpha_clean` and
    `alpha_adversarial`, and both bases' `signed_margins` on both images. They are null for other
    candidates; those of the adversarial image are null if there is none.
    """
    mix = as_mix(task.module)
    if mix is None:
        return tables
    row_of = {index: row for row, index in enumerate(task.indices.tolist())}

    def columns(kind: str, index: list[int], images: Tensor) -> dict[str, FloatArray]:
        labels = task.labels[[row_of[value] for value in index]]
        alpha, accurate, robust = _observe(mix, task, images, labels)
        return {
            f"alpha_{kind}": alpha,
            f"accurate_margin_{kind}": accurate,
            f"robust_margin_{kind}": robust,
        }

    samples = tables.samples.copy()
    index = samples["index"].tolist()
    clean = task.images[[row_of[value] for value in index]]
    for name, values in columns("clean", index, clean).items():
        samples[name] = values
    if tables.witnesses is not None:
        broken = tables.witnesses.index.tolist()
        images = torch.from_numpy(tables.witnesses.images)
        for name, values in columns("adversarial", broken, images).items():
            found = dict(zip(broken, values.tolist(), strict=True))
            samples[name] = np.array([found.get(value, np.nan) for value in index])
    return replace(tables, samples=samples)


def signed_margins(log_probabilities: Tensor, labels: Tensor) -> Tensor:
    """Return confidence margins (n,), in [-1, 1]: negative where the prediction is wrong.

    Their absolute value is the paper's margin, the difference of the two highest probabilities. A
    margin is NaN where the base's probabilities are not finite.

    Args:
        log_probabilities: (n, K).
        labels: (n,).
    """
    highest = log_probabilities.double().exp().topk(2, dim=1).values
    right = classes_of(log_probabilities) == labels
    margins = (highest[:, 0] - highest[:, 1]) * torch.where(right, 1.0, -1.0)
    return torch.where(answered(log_probabilities), margins, math.nan)


def _observe(
    mix: MixedClassifier, task: Task, images: Tensor, labels: Tensor
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the weights (n,) and both bases' margins (n,), accurate and robust, as mixed."""

    def observe(rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with torch.no_grad(), tensor_cores(False):
            answer = mix.answer(images[rows].to(task.device))
        return (
            answer.alpha.double().cpu(),
            signed_margins(answer.accurate.cpu(), labels[rows]),
            signed_margins(answer.robust.cpu(), labels[rows]),
        )

    parts = ImagesAtOnce(task.batch_size).in_parts(torch.arange(len(images)), observe)
    alpha, accurate, robust = (torch.cat(column).numpy() for column in zip(*parts, strict=True))
    return alpha, accurate, robust
