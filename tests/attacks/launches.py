"""What an attack's steps ask of a GPU, counted on a pretend one; the model's own passes left out.

The model is a stand-in: logits and gradients that were made beforehand.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bench.attacks.attack import Attack
from bench.attacks.draws import keyed_draws
from tests.attacks.networks import Answer
from tests.pretend_cuda import PretendCuda

CLASSES = 10


@dataclass(frozen=True)
class Asked:
    """What was asked of a device.

    Attributes:
        launches: operations by name, views left out.
        waits: how often the host waited, by kind and place.
        copied: bytes between host and device, by direction.
    """

    launches: Counter[str]
    waits: Counter[tuple[str, str]]
    copied: Counter[str]

    @classmethod
    def so_far(cls, cuda: PretendCuda) -> Asked:
        """All since the device was made."""
        return cls(Counter(cuda.launches), Counter(cuda.syncs), Counter(cuda.copied))

    def since(self, before: Asked) -> Asked:
        """What came later than `before`."""
        return Asked(
            self.launches - before.launches, self.waits - before.waits, self.copied - before.copied
        )


class _Prepared(torch.autograd.Function):
    """Answers and an image gradient that were made beforehand; neither counts as a launch."""

    @staticmethod
    def forward(
        ctx: Any, images: Tensor, cuda: PretendCuda, gradient: Tensor, *answers: Tensor
    ) -> tuple[Tensor, ...]:
        """Copies of the answers."""
        ctx.cuda, ctx.gradient = cuda, gradient
        with cuda.of_the_model():
            return tuple(each.clone() for each in answers)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """A copy of the gradient."""
        with ctx.cuda.of_the_model():
            return (ctx.gradient.clone(), *[None] * (2 + len(gradients)))


class StandIn:
    """A model, and a mix, on the pretend device whose passes launch nothing."""

    def __init__(self, cuda: PretendCuda, images: Tensor, eps: float) -> None:
        generator = torch.Generator().manual_seed(0)
        logits = torch.randn(len(images), CLASSES, generator=generator)
        gradient = torch.randn(images.shape, generator=generator)
        # The boundary lies a little beyond the ball.
        self.gradient = (gradient / (gradient[0].numel() * eps)).to("cuda")
        self.logits = logits.to("cuda")
        self.logs = logits.log_softmax(dim=1).to("cuda")
        self.gamma = logits[:, 0].to("cuda")
        self.labels = logits.argmax(dim=1).to("cuda")
        self.targets = logits.argsort(dim=1)[:, -2].to("cuda")
        self.cuda = cuda

    def __call__(self, images: Tensor) -> Tensor:
        """(N, K) logits."""
        (logits,) = _Prepared.apply(images, self.cuda, self.gradient, self.logits)
        return logits

    def answer(self, images: Tensor) -> Answer:
        """As of a mix."""
        parts = (self.logs, self.logs, self.logs, self.gamma)
        return Answer(*_Prepared.apply(images, self.cuda, self.gradient, *parts))


def asked_by_steps(attack: Attack[Any], images: Tensor, *, before: int, steps: int) -> Asked:
    """Return what so many steps ask of a device, after others that are not counted.

    Args:
        attack: what is stepped; nothing breaks.
        images: (N, C, H, W), on the CPU.
        before: steps that are not counted: the first put tables on the device.
        steps: that are counted.
    """
    with PretendCuda() as cuda:
        model = StandIn(cuda, images, attack.eps)
        draws = keyed_draws(0, torch.arange(len(images), device="cuda"), "launches")
        state = attack.start(images.to("cuda"), model.labels, draws, model.targets)
        for _ in range(before):
            attack.step(model, state)
        so_far = Asked.so_far(cuda)
        for _ in range(steps):
            attack.step(model, state)
        return Asked.so_far(cuda).since(so_far)
