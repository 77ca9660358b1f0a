"""What is recorded of a mix: weights and margins, on clean and on adversarial images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from bench import data
from bench.engines import AttackTask
from bench.runs.evaluation import Evaluation
from bench.runs.mix_records import signed_margins, with_mix_records
from bench.store.records import AttackBlock, CleanResults, Witnesses
from bench.store.tables import MIX_COLUMNS, Tables
from bench.suites import ThreatModel
from tests.candidates.networks import adaptive_mix

N = 6
BROKEN = [1, 4]


def run_of(module: nn.Module) -> tuple[AttackTask, Tables, torch.Tensor]:
    samples = data.load("digits").first(N)
    task = AttackTask(
        module=module,
        images=samples.images,
        labels=samples.labels,
        indices=samples.indices,
        classes=10,
        threat_model=ThreatModel(norm="Linf", eps=0.1),
        attacks=(),
        seed=0,
        batch_size=4,
        device=torch.device("cpu"),
    )
    images = torch.rand(len(BROKEN), 1, 8, 8, generator=torch.Generator().manual_seed(0))
    index = samples.indices.numpy()
    clean = CleanResults(index, samples.labels.numpy(), samples.labels.numpy())
    attack, prediction = np.full(len(BROKEN), "apgd-ce"), np.zeros(len(BROKEN), int)
    witnesses = Witnesses(np.array(BROKEN), attack, prediction, images.numpy())
    return (
        task,
        Evaluation().join([AttackBlock(key="a", seconds=0, clean=clean, witnesses=witnesses)]),
        images,
    )


def test_weights_and_margins_of_both_images() -> None:
    mix = adaptive_mix()
    task, tables, adversarial = run_of(mix)
    samples = with_mix_records(task, tables).samples
    with torch.no_grad():
        clean, attacked = mix.answer(task.images), mix.answer(adversarial)
    assert samples["alpha_clean"].to_numpy() == pytest.approx(clean.alpha.numpy())
    assert samples["alpha_adversarial"][BROKEN].to_numpy() == pytest.approx(attacked.alpha.numpy())
    margins = signed_margins(attacked.robust, task.labels[BROKEN]).numpy()
    assert samples["robust_margin_adversarial"][BROKEN].to_numpy() == pytest.approx(margins)
    assert samples["alpha_adversarial"].isna().sum() == N - len(BROKEN)


def test_other_candidates_have_none() -> None:
    task, tables, _ = run_of(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))
    assert with_mix_records(task, tables).samples[list(MIX_COLUMNS)].isna().all().all()


def test_margins_are_negative_where_the_prediction_is_wrong() -> None:
    probabilities = torch.tensor([[0.7, 0.2, 0.1], [0.7, 0.2, 0.1], [0.1, 0.4, 0.5]])
    margins = signed_margins(probabilities.log(), torch.tensor([0, 1, 0]))
    assert margins.tolist() == pytest.approx([0.5, -0.5, -0.1])
