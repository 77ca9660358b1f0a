"""Soundness by attack: inside the radius nothing makes a fresh vote certify another class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from bench.candidates import Candidate
from bench.candidates.mix import Mix
from bench.candidates.registry import find_candidates
from bench.certification.batched import Certificate, certify_many
from bench.certification.mix import MixedVote
from bench.certification.noise import Noise
from bench.certification.procedure import FixedProcedure
from bench.certification.smoothing import Smoothing
from bench.data import Dataset, load
from bench.store.records import ABSTAINED
from bench.suites import load_suite

CANDIDATES = ("digits-gaussian", "digits-smoothmix", "digits-mix-smoothmix")
SEED, FRESH_SEED = 0, 1


@dataclass(frozen=True)
class Classifier:
    """A certified candidate: by votes, and as attacks see it."""

    candidate: Candidate
    smoothing: Smoothing

    @classmethod
    def named(cls, name: str, noise_samples: int) -> Classifier:
        """A shipped one."""
        candidate = find_candidates([name], load_suite("digits-l2"))[0].load()
        assert candidate.sigma is not None
        return cls(candidate, Smoothing(candidate.sigma, 50, noise_samples))

    def certify(self, images: Tensor, seed: int) -> list[Certificate]:
        """Certificates of images, in their order."""
        voter, mix = self.candidate.voter, self.candidate.module
        assert voter is not None
        conclude = None
        with torch.no_grad():
            if isinstance(mix, Mix):
                accurate = mix.accurate(images).softmax(1).double().numpy()
                conclude = MixedVote(accurate, mix.alpha, self.smoothing)
            found = [
                each
                for settled, _ in certify_many(
                    lambda noisy: voter(noisy).argmax(1),
                    images,
                    torch.arange(len(images)),
                    10,
                    FixedProcedure(self.smoothing),
                    Noise(seed),
                    512,
                    conclude,
                )
                for each in settled
            ]
        return sorted(found, key=lambda each: each.row)

    def loss(self, images: Tensor, classes: Tensor, noise: Tensor) -> Tensor:
        """-log of the class's probability, the mean softmax in the vote's place, summed."""
        voter, mix = self.candidate.voter, self.candidate.module
        assert voter is not None
        scores: Tensor = voter((images + noise).flatten(0, 1)).view(*noise.shape[:2], -1)
        probabilities = scores.softmax(2).mean(0)
        if isinstance(mix, Mix):
            accurate = mix.accurate(images).softmax(1)
            probabilities = (1 - mix.alpha) * accurate + mix.alpha * probabilities
        return -probabilities.gather(1, classes[:, None]).clamp_min(1e-20).log().sum()


def attack(
    loss: Callable[[Tensor], Tensor], images: Tensor, radii: Tensor, steps: int = 10
) -> Tensor:
    """Normalised ascent within each image's own L2 ball and [0, 1]."""
    limit = radii.view(-1, 1, 1, 1)
    moved = images
    for _ in range(steps):
        moved = moved.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(moved), moved)
        lengths = gradient.flatten(1).norm(dim=1).view(-1, 1, 1, 1).clamp_min(1e-20)
        offset = moved.detach() + 2.5 / steps * limit * gradient / lengths - images
        lengths = offset.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        moved = (images + offset * (limit / lengths.clamp_min(1e-20)).clamp_max(1)).clamp(0, 1)
    return moved.detach()


def check(name: str, samples: Dataset, noise_samples: int, draws: int) -> None:
    """Certify, attack inside and beyond, and vote again."""
    classifier = Classifier.named(name, noise_samples)
    found = classifier.certify(samples.images, SEED)
    kept = [each for each in found if each.prediction != ABSTAINED and each.radius > 0]
    assert len(kept) > 0.7 * len(samples)
    images = samples.images[[each.row for each in kept]]
    classes = torch.tensor([each.prediction for each in kept])
    radii = torch.tensor([each.radius for each in kept], dtype=torch.float32)
    generator = torch.Generator().manual_seed(3)
    noise = torch.randn(draws, *images.shape, generator=generator) * classifier.smoothing.sigma

    def loss(moved: Tensor) -> Tensor:
        return classifier.loss(moved, classes, noise)

    def other_classes(distances: Tensor) -> int:
        moved = attack(loss, images, distances)
        assert ((moved - images).flatten(1).norm(dim=1) <= distances * (1 + 1e-5)).all()
        again = classifier.certify(moved, FRESH_SEED)
        predictions = np.array([each.prediction for each in again])
        return int(((predictions != ABSTAINED) & (predictions != classes.numpy())).sum())

    assert other_classes(0.99 * radii) == 0
    assert other_classes(4 * radii) > 0


@pytest.mark.parametrize("name", CANDIDATES)
def test_no_attack_inside_the_radius_changes_a_fresh_vote(name: str) -> None:
    check(name, load("digits").first(30), noise_samples=300, draws=8)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(6))
@pytest.mark.parametrize("name", CANDIDATES)
def test_no_attack_on_hundreds_changes_a_fresh_vote(name: str, part: int) -> None:
    samples = load("digits")
    some = replace(
        samples,
        images=samples.images[part::6],
        labels=samples.labels[part::6],
        indices=samples.indices[part::6],
    )
    check(name, some, noise_samples=2_000, draws=32)
