"""Adaptive mixes: one pass a base, the gradient's two parts, acceleration, missing layers."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from bench.candidates.features import FeatureExtractor
from bench.candidates.mix import as_mix
from bench.engines.acceleration import accelerate
from bench.errors import InputError
from tests.candidates.networks import adaptive_mix

IMAGES = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def test_answer_is_the_formula_from_one_pass_a_base() -> None:
    mix = adaptive_mix()
    passes = {"accurate": 0, "robust": 0}
    for name in passes:
        base = mix.get_submodule(f"{name}.base")
        base.register_forward_hook(
            lambda *_, name=name: passes.update({name: passes[name] + 1})  # type: ignore[misc]
        )
    answer = mix.answer(IMAGES)
    assert passes == {"accurate": 1, "robust": 1}
    assert answer.gamma is not None
    low, high = mix.alpha_range
    assert (low, high) == pytest.approx((0.6, 0.9))
    assert ((answer.alpha > low) & (answer.alpha < high)).all()
    assert answer.alpha.std().item() > 0.01
    weight = answer.alpha[:, None]
    expected = (1 - weight) * answer.accurate.exp() + weight * answer.robust.exp()
    torch.testing.assert_close(answer.log_probabilities, expected.log())
    torch.testing.assert_close(mix.at_alpha(1.0)(IMAGES), answer.robust)
    assert mix.has_mixing_network


def _gradient(output: Tensor, images: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad(output.sum(), images, retain_graph=True)
    return gradient


def test_gradient_has_the_mixing_networks_part() -> None:
    mix = adaptive_mix().double()
    images = IMAGES.double().requires_grad_()
    labels = torch.arange(5)
    answer = mix.answer(images)
    whole = _gradient(answer.log_probabilities[range(5), labels], images)
    weight = answer.alpha.detach()[:, None]
    fixed = ((1 - weight) * answer.accurate.exp() + weight * answer.robust.exp()).log()
    part = _gradient(fixed[range(5), labels], images)
    slope = (answer.robust.exp() - answer.accurate.exp()) / answer.log_probabilities.exp()
    through = _gradient((slope[range(5), labels].detach() * answer.alpha), images)
    torch.testing.assert_close(whole, part + through)
    assert float(through.abs().max()) > 1e-3 * float(part.abs().max())


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_acceleration_leaves_a_mix(precision: str) -> None:
    mix = copy.deepcopy(adaptive_mix())
    made = accelerate(mix, IMAGES, precision)
    # Of each base: the stem's, two of each block and one of the second block's shortcut.
    assert int(made.record["batch norms folded"].split(",")[0]) >= 10
    assert made.record["channels_last"] == "yes"
    fast = as_mix(made.module)
    assert fast is not None
    expected, answer = mix.answer(IMAGES), fast.answer(IMAGES)
    tolerance = (
        {"rtol": 1e-4, "atol": 1e-4} if precision == "float32" else {"rtol": 0.1, "atol": 0.1}
    )
    assert answer.gamma is not None
    torch.testing.assert_close(answer.gamma, expected.gamma, **tolerance)
    torch.testing.assert_close(made.model(IMAGES), expected.log_probabilities, **tolerance)
    torch.testing.assert_close(fast.at_alpha(0.0)(IMAGES), expected.accurate, **tolerance)


def test_missing_layers_are_named_with_what_exists() -> None:
    with pytest.raises(
        InputError, match=r"robust_layers: the base has no layer 'stages.3'; it has stages\.[01]"
    ):
        adaptive_mix(robust_layers=("stages.0", "stages.3"))
    with pytest.raises(InputError, match="accurate_layers: expected a second map of size"):
        adaptive_mix(accurate_layers=("stages.0", "stages.0"))

    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.unused = nn.Identity()

        def forward(self, images: Tensor) -> Tensor:
            return images

    with pytest.raises(InputError, match="layer 'unused' exists in the base but its forward pass"):
        FeatureExtractor(Unused(), ["unused"])(IMAGES)


def test_layers_that_torch_fx_takes_whole_are_not_folded_away() -> None:
    mix = adaptive_mix(accurate_layers=("stem.0", "stages.1"))
    made = accelerate(mix, IMAGES, "float32")
    fast = as_mix(made.module)
    assert fast is not None
    torch.testing.assert_close(
        fast.answer(IMAGES).gamma, mix.answer(IMAGES).gamma, rtol=1e-4, atol=1e-4
    )
    assert isinstance(fast.accurate, FeatureExtractor)
    assert not isinstance(fast.robust, FeatureExtractor)
