"""The fast gradient sign method as an attack of `bench`.

I. Goodfellow et al., "Explaining and Harnessing Adversarial Examples", ICLR 2015.
"""

import torch
from torch import Tensor
from torch.nn import functional

from bench.attacks import (
    Attack,
    AttackPlan,
    AttackRequest,
    Definition,
    Draws,
    Model,
    Passes,
    State,
    register_attack,
)


class FGSM(Attack[State]):
    """One step along the gradient's sign, then one look at where it led."""

    def __init__(self, eps: float) -> None:
        self.norm = "Linf"
        self.eps = eps
        self.steps = 2
        self.passes = Passes(forward=0, forward_backward=1)
        self.arithmetic = ()

    def start(
        self,
        images: Tensor,
        labels: Tensor,
        draws: Draws,
        targets: Tensor | None = None,
        restarts: Tensor | None = None,
    ) -> State:
        """Start at the clean images."""
        return State(
            labels=labels.clone(),
            targets=torch.zeros_like(labels),
            best=images.clone(),
            broken=torch.zeros_like(labels, dtype=torch.bool),
            iteration=torch.zeros_like(labels),
        )

    def step(self, model: Model, state: State) -> State:
        """Look at the images, and move those that have not moved."""
        searching = ~self.finished(state)
        images = state.best.detach().requires_grad_()
        with torch.enable_grad():
            logits = model(images)
            loss = functional.cross_entropy(logits, state.labels, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, images)
        state.broken.logical_or_(searching & (logits.detach().argmax(dim=1) != state.labels))
        moving = (searching & ~state.broken & (state.iteration == 0)).view(-1, 1, 1, 1)
        state.best.add_(self.eps * gradient.sign() * moving).clamp_(0, 1)
        state.iteration.add_(searching)
        return state


def build(request: AttackRequest) -> AttackPlan:
    """Plan the attack that a suite asks for."""
    return request.plan(FGSM(request.eps))


register_attack("fgsm", Definition("fast gradient sign (Goodfellow 2015)", {}, build))
