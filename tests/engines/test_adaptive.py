"""Defences on which standard gradient attacks fail, and the attack that breaks each of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from bench import data
from bench.attacks import ATTACKS, plan_attack
from bench.candidates import Candidate
from bench.candidates.mix import Mix, MixAnswer, MixedClassifier
from bench.data import Dataset
from bench.runs.capabilities import capabilities
from bench.runs.session import make_plan
from bench.runs.settings import Settings
from bench.suites import Suite
from bench.suites.suite import AttackChoice

N = 40
EPS = 0.1
STANDARD = (
    AttackChoice(name="apgd-ce", parameters={"steps": 20}),
    AttackChoice(name="apgd-t", parameters={"steps": 20, "targets": 3}),
)


@pytest.fixture(scope="module")
def samples() -> Dataset:
    return data.load("digits").first(N)


def _trained(seed: int) -> nn.Module:
    train = data.load("digits", "train")
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    optimizer = torch.optim.Adam(network.parameters(), 3e-2)
    for _ in range(80):
        rows = torch.randint(len(train), (128,), generator=generator)
        loss = nn.functional.cross_entropy(network(train.images[rows]), train.labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.eval()


class Inner(nn.Module):
    """A fragile base: a linear network on the image without its first column."""

    def __init__(self, network: nn.Module, factor: float = 1.0) -> None:
        super().__init__()
        self.network, self.factor = network, factor

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images * _INNER)
        return self.factor * logits


_INNER = torch.ones(8, 8)
_INNER[:, 0] = 0


class Nearest(nn.Module):
    """A base that no attack fools, and that has no gradient: the label of the nearest sample."""

    def __init__(self, samples: Dataset) -> None:
        super().__init__()
        self.samples = samples

    def forward(self, images: Tensor) -> Tensor:
        distances = torch.cdist(images.flatten(1), self.samples.images.flatten(1))
        labels = self.samples.labels[distances.argmin(dim=1)]
        return 20.0 * nn.functional.one_hot(labels, 10) + 0 * images.sum()


@pytest.fixture(scope="module")
def accurate() -> nn.Module:
    return Inner(_trained(0))


@pytest.fixture(scope="module")
def robust(samples: Dataset) -> nn.Module:
    return Nearest(samples)


def column_gate(images: Tensor) -> Tensor:
    """gamma: high while the first column is dark, low once it is lit by most of eps."""
    return 400 * (0.06 - images[:, 0, :, 0].mean(dim=1))


class Weighted(MixedClassifier):
    """A mix whose weight is some function of the image.

    Attributes:
        flattened: whether the mix takes logarithms of probabilities that have been rounded.
        saturation: where gamma is cut off before it becomes a weight.
    """

    def __init__(
        self,
        accurate: nn.Module,
        robust: nn.Module,
        gamma: Callable[[Tensor], Tensor],
        flattened: bool = False,
        saturation: float = 100.0,
    ) -> None:
        super().__init__(accurate, robust, 1.0, 1.0)
        self.gamma_of = gamma
        self.flattened = flattened
        self.saturation = saturation

    @property
    def alpha_range(self) -> tuple[float, float]:
        return 0.0, 1.0

    @property
    def has_mixing_network(self) -> bool:
        return True

    def answer(self, images: Tensor) -> MixAnswer:
        accurate = self.accurate_log_probabilities(self.accurate(images))
        robust = self.robust_log_probabilities(self.robust(images))
        gamma = self.gamma_of(images)
        cut = gamma.clamp(-self.saturation, self.saturation)[:, None]
        rest, weight = nn.functional.logsigmoid(-cut), nn.functional.logsigmoid(cut)
        mixed = torch.logaddexp(accurate + rest, robust + weight)
        if self.flattened:
            mixed = (mixed.exp() + 1e-6).log()
        return MixAnswer(mixed, accurate, robust, torch.sigmoid(gamma), gamma)

    def at_alpha(self, alpha: float) -> Mix:
        return Mix(self.accurate, self.robust, alpha)


class Quantized(nn.Module):
    """A network on images rounded to a few levels: its gradient is zero everywhere."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(torch.round(images * 16) / 16)
        return logits


class Flipping(nn.Module):
    """A network whose gradient has, in each pass, the wrong sign on two fifths of the pixels."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        flipped = (torch.rand_like(images) < 0.4).float()
        turned = images + 2 * flipped * (images.detach() - images)
        logits: Tensor = self.network(turned + 0.01 * torch.randn_like(images))
        return logits


def _robust_accuracy(
    module: nn.Module, samples: Dataset, attacks: tuple[AttackChoice, ...], randomized: bool = False
) -> float:
    suite = Suite.model_validate(
        {
            "name": "own",
            "version": 1,
            "title": "own",
            "data": "digits",
            "threat_model": {"norm": "Linf", "eps": EPS},
            "protocols": {"standard": {"attacks": [each.model_dump() for each in attacks]}},
        }
    )
    candidate = Candidate("it", module.eval(), {}, "it", randomized=randomized)
    settings = Settings(suite, engine="fast", n_examples=N)
    plan = make_plan(candidate, samples, settings)
    assert {each.name for each in plan.task.attacks} == {each.name for each in attacks}
    blocks = list(plan.engine.run(plan.task, {}, lambda _: None))
    return float(plan.kind.join(blocks).samples["robust"].mean())


def _adaptive(name: str) -> AttackChoice:
    steps = {"steps": 20}
    if "targets" in ATTACKS[name].defaults:
        steps["targets"] = 3
    return AttackChoice(name=name, parameters=steps)


def _break(
    module: nn.Module, samples: Dataset, attack: str, randomized: bool = False
) -> tuple[float, float]:
    """Robust accuracy under standard gradient attacks, and under the adaptive one alone."""
    before = _robust_accuracy(module, samples, STANDARD, randomized)
    return before, _robust_accuracy(module, samples, (_adaptive(attack),), randomized)


def test_a_mix_of_saturated_bases_falls_by_an_attack_on_a_base(
    accurate: nn.Module, samples: Dataset
) -> None:
    fragile = Inner(accurate, 1e4)
    mix = Weighted(fragile, fragile, column_gate, flattened=True)
    before, after = _break(mix, samples, "apgd-robust")
    assert before > 0.9
    assert after <= before - 0.2


def test_a_saturated_mixing_network_falls_by_a_push_on_gamma(
    accurate: nn.Module, robust: nn.Module, samples: Dataset
) -> None:
    mix = Weighted(accurate, robust, column_gate, saturation=5)
    before, after = _break(mix, samples, "apgd-alpha-ce")
    assert before > 0.9
    assert after < 0.6


def test_a_detached_weight_falls_by_a_straight_through_gradient(
    accurate: nn.Module, robust: nn.Module, samples: Dataset
) -> None:
    mix = Weighted(accurate, robust, lambda images: column_gate(images.detach()))
    found = capabilities(Candidate("it", mix, {}, "it"), samples.images)
    assert found == {"mix", "mixing network", "stopped gradient"}
    before, after = _break(mix, samples, "apgd-straight-through")
    assert before > 0.9
    assert after < 0.6


def test_a_quantized_input_falls_by_a_straight_through_gradient(
    accurate: nn.Module, samples: Dataset
) -> None:
    before, after = _break(Quantized(accurate), samples, "apgd-straight-through")
    assert before > 0.5
    assert after <= before - 0.4


def test_random_gradients_fall_by_their_expectation(accurate: nn.Module, samples: Dataset) -> None:
    before, after = _break(Flipping(accurate), samples, "apgd-expectation", randomized=True)
    assert after <= before - 0.05


@pytest.mark.parametrize("name", [name for name, each in ATTACKS.items() if each.need])
def test_every_adaptive_attack_plans_for_any_number_of_classes(name: str) -> None:
    for classes in (2, 3, 10):
        plan = plan_attack(name, {}, norm="Linf", eps=EPS, classes=classes)
        assert plan.view != "logits"
        assert plan.items >= 1


def test_the_gradient_has_the_mixing_networks_part(accurate: nn.Module, robust: nn.Module) -> None:
    images = data.load("digits").first(4).images

    def gamma(inputs: Tensor) -> Tensor:
        return 3 * inputs.flatten(1).mean(dim=1)

    def gradient(mix: nn.Module) -> Tensor:
        inputs = images.clone().requires_grad_()
        (result,) = torch.autograd.grad(mix(inputs).max(dim=1).values.sum(), inputs)
        return result

    whole = gradient(Weighted(accurate, robust, gamma))
    cut = gradient(Weighted(accurate, robust, lambda inputs: gamma(inputs).detach()))
    assert not torch.allclose(whole, cut, rtol=1e-3)
