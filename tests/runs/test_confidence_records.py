"""A candidate's confidence: of the recorded class, and none where there is no answer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bench.runs.confidence_records import with_confidences
from bench.store.tables import CONFIDENCE_COLUMNS

from .test_mix_records import BROKEN, N, run_of


class Unsteady(nn.Module):
    """NaN for images whose first pixel is below a threshold."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.inner(images)
        return torch.where(images.flatten(1)[:, :1] < 0.2, torch.nan, logits)


def test_probabilities_of_the_recorded_class_and_of_the_label(linear_digits: nn.Module) -> None:
    task, tables, adversarial = run_of(linear_digits)
    samples = with_confidences(task, tables).samples
    with torch.no_grad():
        clean = linear_digits(task.images).softmax(1)
        attacked = linear_digits(adversarial).softmax(1)
    rows = torch.arange(N)
    labels = task.labels
    assert samples["clean_confidence"].tolist() == pytest.approx(clean[rows, labels].tolist())
    # Witnesses are recorded as class 0.
    found = samples["adversarial_confidence"][BROKEN].tolist()
    assert found == pytest.approx(attacked[:, 0].tolist())
    found = samples["adversarial_label_probability"][BROKEN].tolist()
    assert found == pytest.approx(attacked[torch.arange(2), labels[BROKEN]].tolist())
    assert samples["adversarial_confidence"].isna().sum() == N - len(BROKEN)


def test_no_answer_has_no_confidence(linear_digits: nn.Module) -> None:
    task, tables, _ = run_of(Unsteady(linear_digits))
    samples = with_confidences(task, tables).samples[list(CONFIDENCE_COLUMNS)]
    dark = task.images.flatten(1)[:, 0] < 0.2
    assert samples["clean_confidence"].isna().tolist() == dark.tolist()
    assert np.isfinite(samples["clean_confidence"][~dark.numpy()]).all()
