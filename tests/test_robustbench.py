"""RobustBench imports, and its own `benchmark` runs and gives what this harness gives."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import bench.robustbench as shim
from bench import attacks
from bench.candidates import Candidate
from bench.data import Dataset
from bench.errors import InputError, Unavailable
from bench.runs.session import evaluate
from bench.runs.settings import Settings
from bench.store import Store
from bench.suites import load_suite
from tests.silent import SilentObserver


def test_importing_bench_leaves_robustbench_usable() -> None:
    code = (
        "import bench, sys; assert 'torch' not in sys.modules; "
        "import robustbench, autoattack; from autoattack.state import EvaluationState; "
        "assert autoattack.AutoAttack is bench.robustbench.AutoAttack"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


def test_mismatched_torchvision_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = shim.importlib.import_module

    def broken(name: str, package: str | None = None) -> object:
        if name == "torchvision":
            raise RuntimeError("operator torchvision::nms does not exist")
        return real(name, package)

    monkeypatch.setattr(shim.importlib, "import_module", broken)
    with pytest.raises(ImportError, match=r"pip install --force-reinstall torch torchvision"):
        shim.check_torchvision()


def _images(n: int) -> tuple[Tensor, Tensor, nn.Module]:
    """Random images, a linear network, and labels on which it is mostly right."""
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(n, 3, 32, 32, generator=generator)
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))
    with torch.no_grad():
        network[1].weight.copy_(torch.randn(10, 3072, generator=generator) / 12)
        labels = network(images).argmax(dim=1)
        labels[::7] = (labels[::7] + 1) % 10
    return images, labels, network.eval()


def test_benchmark_agrees_with_the_reference_engine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import robustbench
    from robustbench import eval as evaluation

    images, labels, network = _images(20)
    monkeypatch.setattr(evaluation, "load_clean_dataset", lambda *_: (images, labels))
    eps = 1 / 255
    with shim.seeded(3):
        clean, robust = robustbench.benchmark(
            network, n_examples=20, dataset="cifar10", threat_model="Linf", eps=eps, batch_size=8
        )
    dataset = Dataset("cifar10", images, labels, torch.arange(20), tuple("abcdefghij"), 10_000)
    settings = Settings(
        load_suite("cifar10-linf"),
        engine="reference",
        seed=3,
        batch_size=8,
        eps=eps,
        n_examples=20,
    )
    outcome = evaluate(
        Candidate("linear", network, {}, ""), dataset, settings, Store(tmp_path), SilentObserver()
    )
    assert 0 < robust < clean
    assert (clean, robust) == (outcome.summary.clean_accuracy, outcome.summary.robust_accuracy)


def test_adapter_keeps_the_random_state_and_refuses_a_state_file(tmp_path: Path) -> None:
    images, labels, network = _images(4)
    adversary = shim.AutoAttack(
        network,
        eps=1 / 255,
        version="custom",
        attacks_to_run=["apgd-ce"],
        log_path=tmp_path / "log.txt",
    )
    before = torch.random.get_rng_state()
    adversarial, predictions = adversary.run_standard_evaluation(
        images, labels, bs=4, return_labels=True
    )
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(network(adversarial).argmax(dim=1), predictions)
    assert "apgd-ce" in (tmp_path / "log.txt").read_text()
    with pytest.raises(ValueError, match="bench run"):
        adversary.run_standard_evaluation(images, labels, state_path=tmp_path / "state.json")


def test_benchmark_by_the_fast_engine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import robustbench
    from robustbench import eval as evaluation

    images, labels, network = _images(8)
    monkeypatch.setattr(evaluation, "load_clean_dataset", lambda *_: (images, labels))
    state = tmp_path / "state"
    with shim.engine("fast"), shim.seeded(2):
        first, second = (
            robustbench.benchmark(
                network, n_examples=8, dataset="cifar10", eps=8 / 255, aa_state_path=state
            )
            for _ in range(2)
        )
    expected = attacks.autoattack(network, images, labels, eps=8 / 255, seed=2)
    accuracy = (network(expected).argmax(dim=1) == labels).float().mean().item()
    assert first == second == (6 / 8, accuracy)
    output = capsys.readouterr().out
    assert output.count("engine fast, seed 2") == 2
    assert output.count("Restored state from") == 1
    assert isinstance(shim.AutoAttack(network), shim.AutoAttack)  # outside, the reference
    message = "an engine of reference, fast; got 'slow'"
    with pytest.raises(InputError, match=message), shim.engine("slow"):
        pass


def test_zoo_names_and_a_failed_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import robustbench.utils

    def unreachable(*_: object) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr(robustbench.utils, "download_gdrive_new", unreachable)
    assert "Wang2023Better_WRN-28-10" in shim.model_ids("cifar100", "Linf")
    assert shim.model_ids("digits", "Linf") == []
    arguments = ("Rice2020Overfitting", "cifar100", "Linf")
    assert shim.missing_checkpoints(*arguments, tmp_path)[0].name == "Rice2020Overfitting.pt"
    assert shim.checkpoint_megabytes(*arguments) == pytest.approx(45, rel=0.1)
    file = r"cifar100/Linf/Rice2020Overfitting\.pt"
    expected = (
        r"weights cannot be downloaded from https://drive\.google\.com/uc\?id=\S+ \(no route\): "
        rf"put the file at {tmp_path}/{file} yourself, or name the folder that has {file} by "
        "--model-dir"
    )
    with pytest.raises(Unavailable, match=expected):
        shim.load_zoo_model(*arguments, tmp_path)


def test_a_download_without_a_network_says_what_the_system_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import robustbench.utils

    def unreachable(*_: object) -> None:
        try:
            raise socket.gaierror(-3, "Temporary failure in name resolution")
        except OSError as error:
            raise RuntimeError("HTTPSConnectionPool(<object at 0x7f>: Max retries)") from error

    monkeypatch.setattr(robustbench.utils, "download_gdrive_new", unreachable)
    arguments = ("Rice2020Overfitting", "cifar100", "Linf")
    for fetch in (shim.load_zoo_model, shim.fetch_checkpoints):
        with pytest.raises(
            Unavailable, match=r"\(Temporary failure in name resolution; no network\?\): put the"
        ):
            fetch(*arguments, tmp_path)
