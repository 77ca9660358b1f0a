"""Networks on digits, and defences in front of them that only look robust."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench import data
from bench.candidates import Candidate
from bench.data import Dataset
from bench.engines import AttackTask
from bench.runs.session import make_plan
from bench.runs.settings import Settings
from bench.store.tables import Tables
from bench.suites import Suite
from bench.suites.suite import AttackChoice

N = 40
EPS = 0.1
WHITE_BOX = (
    AttackChoice(name="apgd-ce", parameters={"steps": 20}),
    AttackChoice(name="apgd-t", parameters={"steps": 20, "targets": 3}),
)


def bpda() -> AttackChoice:
    """BPDA at the budget of the others."""
    return AttackChoice(name="apgd-straight-through", parameters={"steps": 20})


@functools.cache
def samples() -> Dataset:
    """The first test samples."""
    return data.load("digits").first(N)


def trained(build: Callable[[], nn.Module], steps: int = 80) -> nn.Module:
    """A network fitted to the digits for a moment."""
    train = data.load("digits", "train")
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build()
        optimizer = torch.optim.Adam(network.parameters(), 1e-2)
        for _ in range(steps):
            rows = torch.randint(len(train), (128,), generator=generator)
            loss = nn.functional.cross_entropy(network(train.images[rows]), train.labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return network.eval().requires_grad_(requires_grad=False)


@functools.cache
def base() -> nn.Module:
    """What the defences defend: a linear classifier."""
    return trained(lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))


class Defence(nn.Module):
    """A network whose images and logits are changed on the way.

    Args:
        network: images -> logits.
        before: changes images.
        after: changes logits.
    """

    def __init__(
        self,
        network: nn.Module,
        before: Callable[[Tensor], Tensor] = lambda images: images,
        after: Callable[[Tensor], Tensor] = lambda logits: logits,
    ) -> None:
        super().__init__()
        self.network, self.before, self.after = network, before, after

    def forward(self, images: Tensor) -> Tensor:
        return self.after(self.network(self.before(images)))


def quantized(images: Tensor) -> Tensor:
    return torch.round(images * 8) / 8


def noisy(images: Tensor) -> Tensor:
    return images + 0.15 * torch.randn_like(images)


def jpeg(images: Tensor) -> Tensor:
    """An 8x8 block's cosine transform, rounded to a table that grows with the frequency."""
    at, frequency = torch.arange(8.0), torch.arange(8.0)[:, None]
    transform = torch.cos((2 * at + 1) * frequency * torch.pi / 16) / 2
    transform[0] /= 2**0.5
    table = 0.05 * (1 + frequency + frequency.T)
    coefficients = transform @ images @ transform.T
    kept: Tensor = transform.T @ (torch.round(coefficients / table) * table) @ transform
    return kept


@functools.cache
def mean_image() -> Tensor:
    return data.load("digits", "train").images.mean(dim=0)


def sparsified(images: Tensor) -> Tensor:
    """What is near the mean of its feature becomes the mean."""
    mean = mean_image()
    near = (images - mean).abs() < 0.4
    return torch.where(near, mean * torch.ones_like(images), images)


def shattered(images: Tensor) -> Tensor:
    """An activation whose slope says nothing about its course."""
    return images + 0.02 * torch.sin(2000 * images)


def batch_centred(images: Tensor) -> Tensor:
    return images - images.mean(dim=0)


def saturated(images: Tensor) -> Tensor:
    """A sigmoid so steep that it is flat wherever a pixel is."""
    return torch.sigmoid(1e4 * (images - 0.47))


class Purified(nn.Module):
    """Moves an image to where the network is surer, before it is classified."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        with torch.enable_grad():
            inputs = images.detach().requires_grad_()
            sureness = self.network(inputs).logsumexp(dim=1).sum()
            (gradient,) = torch.autograd.grad(sureness, inputs)
            moved = inputs + 0.05 * gradient.sign()
        logits: Tensor = self.network(moved.detach())
        return logits


def left_on() -> nn.Module:
    """Dropout that no `eval` turns off."""
    return Defence(base(), lambda images: nn.functional.dropout(images, 0.3, training=True))


def detached_weight() -> nn.Module:
    """A mix of a network and a constant, by a weight that the graph does not follow."""

    class Mix(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            weight = torch.sigmoid(10 * (images.detach().mean(dim=(1, 2, 3)) - 0.3))[:, None]
            logits: Tensor = weight * base()(images)
            return logits

    return Mix()


@dataclass(frozen=True)
class Evaluation:
    """What attacks made of a module."""

    task: AttackTask
    tables: Tables

    @property
    def robust(self) -> float:
        return float(self.tables.samples["robust"].mean())


def evaluate(
    module: nn.Module,
    *attacks: AttackChoice,
    randomized: bool = False,
    surrogate: nn.Module | None = None,
) -> Evaluation:
    """Attack a module on the samples."""
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
    candidate = Candidate("it", module, {}, "it", randomized=randomized, surrogate=surrogate)
    settings = Settings(suite, engine="fast", n_examples=N)
    plan = make_plan(candidate, samples(), settings)
    assert [each.name for each in plan.task.attacks] == [each.name for each in attacks]
    blocks = list(plan.engine.run(plan.task, {}, lambda _: None))
    return Evaluation(plan.task, plan.kind.join(blocks))
