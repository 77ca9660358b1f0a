"""The published networks against RobustBench's, small; `test_slow_published.py` has full sizes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bench.candidates import published_mixes
from bench.candidates.bit import bit_resnet
from bench.candidates.mixed_nuts import MixedNuts, surrogate
from bench.candidates.mixing_network import MixingNetwork
from bench.candidates.published_mixes import as_mixed_nuts
from bench.candidates.registry import find_candidates
from bench.robustbench import make_importable
from bench.suites import load_suite
from tests.candidates.networks import adaptive_mix


def _gradient(logits: Tensor, images: Tensor) -> Tensor:
    loss = nn.functional.cross_entropy(logits, torch.arange(len(images)))
    (gradient,) = torch.autograd.grad(loss, images, retain_graph=True)
    return gradient


def test_bit_agrees_with_robustbench() -> None:
    make_importable()
    from robustbench.model_zoo.architectures.bit_rn_v2 import ResNetV2

    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = ResNetV2([1, 2, 1, 1], 1, head_size=10).eval()
        ours = bit_resnet(10, blocks=(1, 2, 1, 1), width=1).eval()
        images = torch.rand(2, 3, 32, 32, requires_grad=True)
    state = theirs.state_dict()
    del state["mean"], state["std"]
    ours.load_state_dict(state)
    expected, logits = theirs(images), ours(images)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(_gradient(logits, images), _gradient(expected, images))


def test_the_zoos_mixes_are_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suite = load_suite("cifar100-linf")
    (reference,) = find_candidates(["robustbench:Bai2023Improving_trades"], suite, tmp_path)
    assert reference.availability().note == "weights to download, about 2,270 MB"
    small, other = adaptive_mix(seed=0), adaptive_mix(seed=1)
    accurate, robust, network = published_mixes.parts(other)
    assert isinstance(network, MixingNetwork)
    folder = tmp_path / "cifar100" / "Linf"
    folder.mkdir(parents=True)
    prefixed = {f"module.{name}": value for name, value in accurate.state_dict().items()}
    files = (
        {"state_dict": prefixed},
        robust.state_dict(),
        {"model": network.model.state_dict(), "bn": network.bn.state_dict()},
    )
    for number, content in enumerate(files):
        torch.save(content, folder / f"Bai2023Improving_trades.pt_m{number}.pt")
    monkeypatch.setattr(published_mixes, "build", lambda *_: small)
    assert reference.availability().here
    candidate = reference.load()
    assert sorted(candidate.weights_sha256) == ["accurate", "mixing_network", "robust"]
    assert candidate.mix is not None
    images = torch.rand(3, 1, 8, 8)
    assert torch.equal(candidate.module(images), other(images))


@pytest.fixture
def robustbench_mixed_nuts() -> nn.Module:
    make_importable()
    from robustbench.model_zoo.architectures.mixing_net import NonLinMixedClassifier
    from robustbench.model_zoo.architectures.output_maps import HardMaxMap, LNClampPowerScaleMap

    with torch.random.fork_rng():
        torch.manual_seed(0)
        bases = [nn.Sequential(nn.Flatten(), nn.Linear(27, 300)).eval() for _ in range(2)]
    model: nn.Module = NonLinMixedClassifier(
        *bases,
        {
            "std_map": HardMaxMap(),
            "rob_map": LNClampPowerScaleMap(
                scale=0.61158, power=3.57143, clamp_bias=-2.14286, ln_k=250
            ),
            "alpha": 0.98603,
            "alpha_diffable": 0.97070,
        },
    )
    return model.eval()


def test_mixed_nuts_agrees_with_robustbench(robustbench_mixed_nuts: nn.Module) -> None:
    ours = as_mixed_nuts(robustbench_mixed_nuts)
    assert ours.alpha == pytest.approx(0.98603)
    images = torch.rand(4, 3, 3, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    expected, of_surrogate, _ = robustbench_mixed_nuts(images, return_all=True)
    for logits, theirs in ((ours(images), expected), (surrogate(ours)(images), of_surrogate)):
        torch.testing.assert_close(logits, theirs, rtol=1e-4, atol=1e-5)
        gradient = _gradient(logits, images)
        torch.testing.assert_close(gradient, _gradient(theirs, images), rtol=1e-4, atol=1e-7)


def test_mixed_nuts_is_finite_for_large_logits() -> None:
    class Scaled(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return 1e4 * images.flatten(1)

    mix = MixedNuts(
        Scaled(), Scaled(), alpha=0.9, scale=5.0, power=4.0, bias=-1.1, surrogate_alpha=0.9
    )
    images = torch.rand(4, 1, 3, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    for module in (mix, surrogate(mix), mix.at_alpha(0.0)):
        logits = module(images)
        assert torch.isfinite(logits).all()
        if logits.requires_grad:
            assert torch.isfinite(_gradient(logits, images)).all()
