"""RobustBench's published adaptive mixes in full size, on random weights: ours against theirs.

Each takes a minute or two of one core and about seven gigabytes; they run one after the other.
"""

from __future__ import annotations

import contextlib
import gc
import io
from collections.abc import Callable
from typing import NamedTuple
from unittest import mock

import pytest
import torch
from torch import Tensor, nn

from bench.candidates import published_mixes
from bench.robustbench import make_importable

pytestmark = pytest.mark.slow


class Answer(NamedTuple):
    """Logits (N, K), gamma (N,), and gradients of the cross-entropy and of gamma's sum."""

    logits: Tensor
    gamma: Tensor
    gradient: Tensor
    gamma_gradient: Tensor


def _answer(call: Callable[[Tensor], tuple[Tensor, Tensor]], images: Tensor) -> Answer:
    images = images.clone().requires_grad_()
    logits, gamma = call(images)
    loss = nn.functional.cross_entropy(logits, torch.arange(len(images)))
    (gradient,) = torch.autograd.grad(loss, images, retain_graph=True)
    (gamma_gradient,) = torch.autograd.grad(gamma.sum(), images)
    return Answer(logits.detach(), gamma.detach(), gradient, gamma_gradient)


def _robustbenchs(
    dataset: str, name: str, images: Tensor
) -> tuple[list[dict[str, Tensor]], Answer]:
    """The three checkpoints of RobustBench's class with random weights, and its answer."""
    make_importable()
    from robustbench.model_zoo.architectures import comp_model

    with (
        contextlib.redirect_stdout(io.StringIO()),
        mock.patch.object(Tensor, "cuda", lambda tensor, *_: tensor),
    ):
        model = comp_model.get_composite_model(name, dataset).eval().comp_model

    def settle(_: nn.Module, __: object, output: Tensor) -> None:
        """Give the last batch norm these images' statistics, so that alpha depends on them."""
        model.bn.running_mean.copy_(output.detach().mean())
        model.bn.running_var.copy_(output.detach().var())

    model.requires_grad_(False)
    model.policy_net.register_forward_hook(settle)
    answer = _answer(model, images)
    network = {"model": model.policy_net.state_dict(), "bn": model.bn.state_dict()}
    flat = {f"{part}.{key}": value for part, s in network.items() for key, value in s.items()}
    return [*(base.state_dict() for base in model.models), flat], answer


@pytest.mark.parametrize(("dataset", "model_id"), published_mixes.PUBLISHED)
def test_published_mix_agrees_with_robustbench(dataset: str, model_id: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        images = torch.rand(2, 3, 32, 32)
        states, expected = _robustbenchs(dataset, model_id.rpartition("_")[2], images)
        gc.collect()
        mix = published_mixes.build(dataset, model_id).eval()
    for part, state in zip(published_mixes.parts(mix), states, strict=True):
        part.load_state_dict(state, assign=True)

    def call(images: Tensor) -> tuple[Tensor, Tensor]:
        answer = mix.answer(images)
        assert answer.gamma is not None
        return answer.log_probabilities, answer.gamma

    mix.requires_grad_(False)
    for name, came, theirs in zip(Answer._fields, _answer(call, images), expected, strict=True):
        difference = float((came - theirs).abs().max() / theirs.abs().max())
        assert difference <= 1e-4, f"{name}: relative difference {difference}"
