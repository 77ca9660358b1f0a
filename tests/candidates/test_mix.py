"""Fixed mixes: the formula, its ends, its soundness for large logits."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from bench.attacks.expectation import expectation
from bench.candidates.mix import Mix, as_mix
from bench.errors import InputError
from tests.candidates.networks import Given

IMAGES = torch.rand(6, 1, 2, 2, generator=torch.Generator().manual_seed(0))


def _logits(seed: int, size: float) -> Tensor:
    return size * torch.randn(6, 5, generator=torch.Generator().manual_seed(seed))


@settings(deadline=None, max_examples=50)
@given(
    seed=st.integers(0, 1000),
    size=st.sampled_from([0.1, 1.0, 10.0, 1e4]),
    alpha=st.floats(0, 1),
    scales=st.tuples(st.floats(0.1, 3), st.floats(0.1, 3)),
)
def test_mix_is_the_logarithm_of_mixed_probabilities(
    seed: int, size: float, alpha: float, scales: tuple[float, float]
) -> None:
    accurate, robust = Given(_logits(seed, size)), Given(_logits(seed + 1, size))
    mix = Mix(accurate, robust, alpha, *scales)
    images = IMAGES.clone().requires_grad_()
    logits = mix(images)
    expected = (1 - alpha) * (scales[0] * accurate.logits.double()).softmax(dim=1)
    expected = expected + alpha * (scales[1] * robust.logits.double()).softmax(dim=1)
    torch.testing.assert_close(logits.double().exp(), expected, rtol=1e-3, atol=1e-6)
    loss = nn.functional.cross_entropy(logits, torch.arange(6) % 5)
    gradients = torch.autograd.grad(
        loss, (images, accurate.logits, robust.logits), allow_unused=True
    )
    assert torch.isfinite(logits).all()
    assert all(torch.isfinite(each).all() for each in gradients if each is not None)


def test_ends_are_the_bases_and_the_other_base_rests() -> None:
    accurate, robust = Given(_logits(0, 3.0)), Given(_logits(1, 3.0))
    mix = Mix(accurate, robust, 0.4, accurate_scale=2.0)
    assert torch.equal(mix.at_alpha(0.0)(IMAGES), (2 * accurate.logits).log_softmax(dim=1))
    assert (accurate.passes, robust.passes) == (1, 0)
    assert torch.equal(mix.at_alpha(1.0)(IMAGES), robust.logits.log_softmax(dim=1))
    assert (accurate.passes, robust.passes) == (1, 1)
    answer = mix.answer(IMAGES)
    assert (accurate.passes, robust.passes) == (2, 2)
    assert torch.equal(answer.accurate, mix.at_alpha(0.0)(IMAGES))
    assert torch.equal(answer.log_probabilities, mix(IMAGES))
    assert torch.equal(mix.answer(IMAGES).alpha, torch.full((6,), 0.4))
    assert mix.answer(IMAGES).gamma is None
    assert not mix.has_mixing_network
    assert as_mix(mix) is mix
    assert as_mix(accurate) is None


class _InPlace(nn.Module):
    """Logits that are the images, after a change in place."""

    def forward(self, images: Tensor) -> Tensor:
        """(N, K) of images (N, K, 1, 1)."""
        return images.sub_(0.5).mul_(3).flatten(1)


def test_no_base_sees_what_another_did_to_its_images() -> None:
    images = torch.rand(4, 5, 1, 1, generator=torch.Generator().manual_seed(0))
    changed = ((images - 0.5) * 3).flatten(1).log_softmax(dim=1)
    answer = Mix(_InPlace(), _InPlace(), 0.5).answer(images.clone())
    torch.testing.assert_close(answer.accurate, changed)
    torch.testing.assert_close(answer.robust, changed)
    averaged = expectation(_InPlace(), draws=3)(images)
    torch.testing.assert_close(averaged, changed)


def test_bases_stay_in_evaluation_mode() -> None:
    mix = Mix(nn.Dropout(), nn.Dropout(), 0.5).train()
    assert mix.training
    assert not mix.accurate.training
    assert not mix.robust.training


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"alpha": 1.2}, r"alpha: expected a number in \[0, 1\], got 1.2"),
        ({"alpha": float("nan")}, r"alpha: expected a number in \[0, 1\], got nan"),
        ({"alpha": 0.5, "robust_scale": 0.0}, "robust_scale: expected a number > 0, got 0.0"),
    ],
)
def test_wrong_numbers_are_named(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Mix(nn.Identity(), nn.Identity(), **arguments)


def test_different_numbers_of_classes_are_named() -> None:
    mix = Mix(Given(torch.zeros(6, 5)), Given(torch.zeros(6, 4)), 0.5)
    with pytest.raises(InputError, match="accurate base with 5 and a robust base with 4"):
        mix(IMAGES)
