"""Noise: normal, keyed by draw, and the same words on every machine."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from bench.certification.noise import Noise, Piece, _box_muller, numpy_words, torch_words
from bench.errors import InputError

WORDS = st.sampled_from([0, 1, 1 << 31, 1 << 32, 1 << 63, (1 << 64) - 1]) | st.integers(
    0, (1 << 64) - 1
)


def test_noise_is_normal_and_belongs_to_the_draw() -> None:
    noise = Noise(3)
    whole = noise.normal([Piece(0, 7, 0, 300)], (2, 9, 7))
    parts = noise.normal([Piece(0, 7, 250, 7), Piece(1, 8, 0, 1), Piece(0, 7, 90, 30)], (2, 9, 7))
    assert torch.equal(parts, torch.cat([whole[250:257], parts[7:8], whole[90:120]]))
    assert not torch.equal(parts[7], whole[0])
    numbers = np.sort(whole.numpy().ravel().astype(np.float64))
    distance = np.abs(norm.cdf(numbers) - np.linspace(0, 1, len(numbers))).max()
    assert distance < 1.95 / np.sqrt(len(numbers))  # Kolmogorov and Smirnov, one in a thousand
    # Neither a draw and the next, nor the two numbers that come of one pair of words; squares too.
    flat = whole.flatten(1).double().numpy()
    half = flat.shape[1] // 2
    for left, right in ((flat[:-1], flat[1:]), (flat[:, :half], flat[:, -half:])):
        for power in (1, 2):
            correlation = np.corrcoef(left.ravel() ** power, right.ravel() ** power)[0, 1]
            assert abs(correlation) < 4 / np.sqrt(left.size)


@settings(deadline=None, max_examples=50)
@given(
    seed=WORDS,
    index=st.integers(0, 1 << 40),
    first=st.integers(0, 1 << 40),
    count=st.integers(1, 3),
    counters=st.integers(1, 5),
)
def test_every_device_has_the_same_words(
    seed: int, index: int, first: int, count: int, counters: int
) -> None:
    """The words that GPUs compute are NumPy's, here computed on the CPU."""
    pieces = [Piece(0, index, first, count), Piece(1, 3, 0, 2)]
    expected = numpy_words(seed, pieces, counters, "cpu")
    assert torch.equal(torch_words(seed, pieces, counters, "cpu"), expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_has_the_same_noise_but_for_rounding() -> None:
    pieces = [Piece(0, 7, 0, 30), Piece(1, 8, 5, 3)]
    ours, theirs = (
        Noise(3, device).normal(pieces, (3, 32, 32)).cpu() for device in ("cpu", "cuda")
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_the_noise_is_pinned() -> None:
    """Another order of its words would be other noise under the same name."""
    noise = Noise(3).normal([Piece(0, 7, 0, 2)], (1, 8, 8))
    words = np.random.Philox(counter=[8, 0, 0, 1], key=[3, 7]).random_raw(32).view(np.int32)
    uniform = np.abs(words.astype(np.float64)) / 2**31
    angle = words.astype(np.float64) * np.pi / 2**31
    length = np.sqrt(-2 * np.log(uniform[:32]))
    expected = np.concatenate((length * np.cos(angle[32:]), length * np.sin(angle[32:])))
    np.testing.assert_allclose(noise[1].ravel().numpy(), expected, rtol=1e-4, atol=1e-5)
    draws = Noise(3).normal([Piece(0, index, 0, 50) for index in (7, 8)], (1, 8, 8))
    assert len(torch.unique(draws)) > 0.999 * draws.numel()


def test_extreme_words_give_finite_noise() -> None:
    extremes = torch.tensor([[0, 2**31 - 1, -(2**31), 1, 0, -(2**31), 2**31 - 1, -1]])
    noise = _box_muller(extremes.int())
    assert bool(noise.isfinite().all())
    assert float(noise.abs().max()) == pytest.approx(np.sqrt(64 * np.log(2)))


def test_every_seed_has_its_own_noise() -> None:
    seeds = (0, 1, 1 << 32, 1 << 63, (1 << 64) - 1)
    noises = [Noise(seed).normal([Piece(0, 7, 0, 1)], (4,)) for seed in seeds]
    assert len({noise.numpy().tobytes() for noise in noises}) == len(seeds)


def test_wrong_seed_is_named() -> None:
    with pytest.raises(InputError, match="seed in"):
        Noise(-1)
