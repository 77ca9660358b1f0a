"""Certification over many images: the original algorithm's results, whatever the batch size."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from scipy.stats import beta, norm
from torch import Tensor, nn

from bench import data
from bench.certify.noise import (
    DeviceNoise,
    Noise,
    Piece,
    ProcessorNoise,
    _box_muller,
    noise_for,
)
from bench.certify.sequential import SequentialProcedure
from bench.certify.smoothing import FixedProcedure, Procedure, Smoothing
from bench.certify.votes import ABSTAINED, Certificate, certify
from bench.errors import InputError

SMOOTHING = Smoothing(sigma=0.25, selection_samples=20, noise_samples=350)
NOISES = [ProcessorNoise(3), DeviceNoise(3, torch.device("cpu"))]


def _certify(
    module: nn.Module,
    images: Tensor,
    procedure: Procedure,
    batch_size: int,
    noise: Noise | None = None,
) -> list[Certificate]:
    found: list[Certificate] = []
    sizes = []
    with torch.no_grad():
        for settled, draws in certify(
            lambda noisy: module(noisy).argmax(dim=1),
            images,
            torch.arange(40, 40 + len(images)),
            10,
            procedure,
            noise or ProcessorNoise(3),
            batch_size,
        ):
            found += settled
            sizes.append(draws)
    full = sum(size == batch_size for size in sizes)
    assert full == len(sizes) - 1 or procedure.name == "sequential"
    return sorted(found, key=lambda each: each.row)


def _textbook(module: nn.Module, image: Tensor, noise: Iterator[Tensor]) -> tuple[int, float]:
    """CERTIFY as the paper's box says it: one image, one noise vector after the other."""

    def sample_under_noise(count: int) -> list[int]:
        counts = [0] * 10
        for _ in range(count):
            counts[int(module((image + SMOOTHING.sigma * next(noise))[None]).argmax())] += 1
        return counts

    counts0 = sample_under_noise(SMOOTHING.selection_samples)
    guess = max(range(10), key=counts0.__getitem__)
    counts = sample_under_noise(SMOOTHING.noise_samples)
    k, n = counts[guess], SMOOTHING.noise_samples
    lower = beta.ppf(SMOOTHING.failure_probability, k, n - k + 1) if k else 0.0
    return (guess, SMOOTHING.sigma * norm.ppf(lower)) if lower >= 0.5 else (ABSTAINED, 0.0)


@pytest.mark.parametrize("noise", NOISES, ids=lambda noise: noise.name)
def test_fixed_equals_the_textbook_loop(linear_digits: nn.Module, noise: Noise) -> None:
    images = data.load("digits").images[:12]
    found = _certify(linear_digits, images, FixedProcedure(SMOOTHING), 64, noise)
    draws = SMOOTHING.selection_samples + SMOOTHING.noise_samples
    for row, image in enumerate(images):
        same = iter(noise.normal([Piece(0, 40 + row, 0, draws)], image.shape))
        with torch.no_grad():
            prediction, radius = _textbook(linear_digits, image, same)
        assert found[row].prediction == prediction
        assert found[row].radius == pytest.approx(radius, abs=1e-12)
        assert found[row].noise_samples == SMOOTHING.noise_samples
    assert {each.prediction == ABSTAINED for each in found} == {True, False}


@pytest.mark.parametrize("procedure", [FixedProcedure, SequentialProcedure])
def test_batch_size_changes_nothing(linear_digits: nn.Module, procedure: type[Procedure]) -> None:
    images = data.load("digits").images[:12]
    whole = _certify(linear_digits, images, procedure(SMOOTHING), 1000)
    assert whole == _certify(linear_digits, images, procedure(SMOOTHING), 17)
    # Nor does the company: a sample alone has the same certificate.
    assert _certify(linear_digits, images[:1], procedure(SMOOTHING), 64) == whole[:1]


@pytest.mark.parametrize("noise", NOISES, ids=lambda noise: noise.name)
def test_noise_is_normal_and_belongs_to_the_draw(noise: Noise) -> None:
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


def test_the_processors_noise_is_pinned() -> None:
    """Another order of its words would be other noise under the same name."""
    noise = ProcessorNoise(3).normal([Piece(0, 7, 0, 2)], (1, 8, 8))
    words = np.random.Philox(counter=[8, 0, 0, 1], key=[3, 7]).random_raw(32).view(np.int32)
    uniform = np.abs(words.astype(np.float64)) / 2**31
    angle = words.astype(np.float64) * np.pi / 2**31
    length = np.sqrt(-2 * np.log(uniform[:32]))
    expected = np.concatenate((length * np.cos(angle[32:]), length * np.sin(angle[32:])))
    np.testing.assert_allclose(noise[1].ravel().numpy(), expected, rtol=1e-4, atol=1e-5)
    draws = ProcessorNoise(3).normal([Piece(0, index, 0, 50) for index in (7, 8)], (1, 8, 8))
    assert len(torch.unique(draws)) > 0.999 * draws.numel()


def test_extreme_words_give_finite_noise() -> None:
    extremes = torch.tensor([[0, 2**31 - 1, -(2**31), 1, 0, -(2**31), 2**31 - 1, -1]])
    noise = _box_muller(extremes.int())
    assert bool(noise.isfinite().all())
    assert float(noise.abs().max()) == pytest.approx(np.sqrt(64 * np.log(2)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sigma": 0.0}, "sigma > 0, got 0.0"),
        ({"selection_samples": 0}, "selection_samples >= 1, got 0"),
        ({"noise_samples": 0}, "noise_samples >= 1, got 0"),
        ({"failure_probability": 1.0}, r"failure probability in \(0, 1\), got 1.0"),
    ],
)
def test_wrong_settings_are_named(changes: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Smoothing(**{"sigma": 0.5, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["philox-box-muller", "keyed-philox"])
def test_every_seed_has_its_own_noise(name: str) -> None:
    sources: dict[str, Callable[[int], Noise]] = {
        "philox-box-muller": ProcessorNoise,
        "keyed-philox": lambda seed: DeviceNoise(seed, torch.device("cpu")),
    }
    seeds = (0, 1, 1 << 32, 1 << 63, (1 << 64) - 1)
    noises = [sources[name](seed).normal([Piece(0, 7, 0, 1)], (4,)) for seed in seeds]
    first = {noise.numpy().tobytes() for noise in noises}
    assert len(first) == len(seeds)


def test_wrong_seed_is_named() -> None:
    with pytest.raises(InputError, match="seed in"):
        noise_for(-1, torch.device("cpu"))
