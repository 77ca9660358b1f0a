"""What the fast engine does beyond the reference: known images first, and going on to the end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from bench import data
from bench.candidates import Candidate
from bench.engines import AttackTask, Trials
from bench.engines.convergence import expected_share, harder_plans
from bench.engines.fast import FastEngine
from bench.runs.evaluation import Evaluation
from bench.runs.session import evaluate, make_plan
from bench.runs.settings import Settings
from bench.store import Store
from bench.suites import Suite
from tests.silent import SilentObserver


def _candidate(name: str, seed: int) -> Candidate:
    generator = torch.Generator().manual_seed(seed)
    samples = data.load("digits", "train")
    flat = samples.images.flatten(1)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layer = nn.Linear(64, 10)
    optimizer = torch.optim.Adam(layer.parameters(), 3e-2)
    for _ in range(60):
        rows = torch.randint(len(flat), (128,), generator=generator)
        loss = nn.functional.cross_entropy(layer(flat[rows]), samples.labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return Candidate(name, nn.Sequential(nn.Flatten(), layer).eval(), {"weights": name}, name)


def _settings(**changes: object) -> Settings:
    suite = Suite.model_validate(
        {
            "name": "own",
            "version": 1,
            "title": "own",
            "data": "digits",
            "threat_model": {"norm": "Linf", "eps": 0.06},
            "protocols": {
                "standard": {"attacks": [{"name": "apgd-ce", "parameters": {"steps": 5}}]}
            },
        }
    )
    return replace(Settings(suite, engine="fast", n_examples=60), **changes)  # type: ignore[arg-type]


def test_witnesses_of_another_candidate_are_tried_first(tmp_path: Path) -> None:
    samples = data.load("digits").first(60)
    store, observer = Store(tmp_path), SilentObserver()
    first = evaluate(_candidate("one", 0), samples, _settings(), store, observer)
    seeded = _settings(seed_witnesses=True)
    second = evaluate(_candidate("two", 1), samples, seeded, store, observer).summary
    assert [attack.name for attack in second.attacks] == ["witnesses", "apgd-ce"]
    assert 0 < second.attacks[0].broken <= second.attacks[0].forward_passes
    assert second.attacks[0].forward_passes <= first.summary.n_examples
    assert second.autoattack_accuracy is None
    assert 0 < second.engine_record["passes_saved"] < 13 * second.attacks[0].broken  # type: ignore[operator]
    alone = evaluate(_candidate("two", 1), samples, _settings(), store, observer).summary
    assert second.robust_accuracy <= alone.robust_accuracy
    # The same command finds its complete run, whatever was added to the store since.
    assert evaluate(_candidate("two", 1), samples, seeded, store, observer).reused


def test_trials_outside_the_ball_count_for_nothing() -> None:
    samples = data.load("digits").first(20)
    settings = _settings()
    task = make_plan(_candidate("one", 0), samples, settings).task
    far = Trials(samples.indices, 1 - samples.images, torch.zeros(len(samples)))
    blocks = list(FastEngine().run(replace(task, trials=far), {}, lambda _: None))
    tried = next(block for block in blocks if "witnesses" in block.key)
    assert tried.witnesses is None
    plain = Evaluation().join(list(FastEngine().run(task, {}, lambda _: None)))
    assert Evaluation().join(blocks).samples["robust"].equals(plain.samples["robust"])


def test_until_converged_goes_on_and_says_when_it_stopped(tmp_path: Path) -> None:
    samples = data.load("digits").first(30)
    settings = _settings(until_converged=True, n_examples=30)
    summary = evaluate(
        _candidate("one", 0), samples, settings, Store(tmp_path), SilentObserver()
    ).summary
    assert summary.convergence is not None
    assert summary.convergence.converged
    assert summary.convergence.shares_broken
    passes = [point[0] for point in summary.convergence.curve]
    accuracies = [point[1] for point in summary.convergence.curve]
    assert passes == sorted(passes)
    assert accuracies == sorted(accuracies, reverse=True)
    assert accuracies[-1] == summary.robust_accuracy


def test_each_doubling_doubles_the_passes() -> None:
    task: AttackTask = make_plan(
        _candidate("one", 0), data.load("digits").first(5), _settings()
    ).task
    passes = [
        sum(plan.most_passes.forward_backward for plan in harder_plans(task, doubling))
        for doubling in (1, 2, 3)
    ]
    assert passes[1] / passes[0] == pytest.approx(2, rel=0.02)
    assert passes[2] / passes[1] == pytest.approx(2, rel=0.02)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=5))
def test_the_extrapolation_never_exceeds_the_last_share(shares: list[float]) -> None:
    assert 0 <= expected_share(shares) <= shares[-1]
