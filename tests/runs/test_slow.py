"""What takes minutes: the shipped CIFAR-100 submission through every road, on real images."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bench import data
from bench.candidates.registry import find_candidates
from bench.robustbench import seeded
from bench.runs.session import RunResult, evaluate
from bench.runs.settings import Settings
from bench.store import Store
from bench.suites import load_suite
from tests.silent import SilentObserver

pytestmark = [pytest.mark.slow, pytest.mark.cifar]


def _run(name: str, n: int, batch_size: int, data_dir: Path, root: Path) -> RunResult:
    suite = load_suite("cifar100-linf")
    (reference,) = find_candidates([name], suite)
    settings = Settings(suite, engine="reference", batch_size=batch_size, n_examples=n)
    samples = data.load_source(suite.data, data_dir, n)
    return evaluate(reference.load(), samples, settings, Store(root), SilentObserver())


def test_robustbench_benchmark_agrees_on_a_submission(data_dir: Path, tmp_path: Path) -> None:
    import robustbench

    outcome = _run("cifar100-robust", 50, 32, data_dir, tmp_path)
    suite = load_suite("cifar100-linf")
    (reference,) = find_candidates(["cifar100-robust"], suite)
    with seeded(0):
        clean, robust = robustbench.benchmark(
            reference.load().module,
            n_examples=50,
            dataset="cifar100",
            threat_model="Linf",
            eps=8 / 255,
            data_dir=str(data_dir),
            batch_size=32,
        )
    summary = outcome.summary
    assert (summary.clean_accuracy, summary.robust_accuracy) == pytest.approx((clean, robust))


def test_two_hundred_images_equal_pyautoattack(data_dir: Path, tmp_path: Path) -> None:
    from pyautoattack import AutoAttack

    outcome = _run("cifar100-robust", 200, 100, data_dir, tmp_path)
    suite = load_suite("cifar100-linf")
    (reference,) = find_candidates(["cifar100-robust"], suite)
    module = reference.load().module
    samples = data.load_source(suite.data, data_dir, 200)
    with torch.random.fork_rng():
        adversary = AutoAttack(module, norm="Linf", eps=8 / 255, seed=0)
        images, _ = adversary.run_standard_evaluation(
            samples.images, samples.labels, batch_size=100
        )
    with torch.no_grad():
        standing = module(images).argmax(dim=1) == samples.labels
    assert outcome.folder.samples()["robust"].tolist() == standing.tolist()


def test_pyautoattacks_example_is_as_known(data_dir: Path, tmp_path: Path) -> None:
    suite = load_suite("cifar10-linf")
    (reference,) = find_candidates(["pyautoattack-example"], suite)
    settings = Settings(suite, engine="fast", batch_size=100, n_examples=1000)
    samples = data.load_source(suite.data, data_dir, 1000)
    outcome = evaluate(reference.load(), samples, settings, Store(tmp_path), SilentObserver())
    assert outcome.summary.clean_accuracy == 0.937
    assert outcome.summary.robust_accuracy == 0
