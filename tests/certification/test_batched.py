"""Certification over many images: CERTIFY's results, whatever the batch size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from bench import data
from bench.certification.batched import Certificate, certify_many
from bench.certification.noise import Noise
from bench.certification.procedure import FixedProcedure, Procedure
from bench.certification.sequential import SequentialProcedure
from bench.certification.smoothing import Smoothing, certify
from bench.decision import classes_of
from bench.store.records import ABSTAINED

SMOOTHING = Smoothing(sigma=0.25, selection_samples=20, noise_samples=350)


def _certify(
    module: nn.Module, images: Tensor, procedure: Procedure, batch_size: int
) -> list[Certificate]:
    found: list[Certificate] = []
    sizes = []
    with torch.no_grad():
        for settled, draws in certify_many(
            lambda noisy: classes_of(module(noisy)),
            images,
            torch.arange(40, 40 + len(images)),
            10,
            procedure,
            Noise(3),
            batch_size,
        ):
            found += settled
            sizes.append(draws)
    full = sum(size == batch_size for size in sizes)
    assert full == len(sizes) - 1 or procedure.name == "sequential"
    return sorted(found, key=lambda each: each.row)


class SometimesSilent(nn.Module):
    """A network without an answer to some noisy images."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        silent = images.mean(dim=(1, 2, 3)) > 0.37
        logits: Tensor = self.network(images)
        return logits.masked_fill(silent[:, None], float("nan"))


@pytest.mark.parametrize("silent", [False, True])
@pytest.mark.parametrize("batch_size", [64, 1_000])
def test_the_fixed_procedure_gives_the_certificates_of_certify(
    linear_digits: nn.Module, silent: bool, batch_size: int
) -> None:
    module = SometimesSilent(linear_digits) if silent else linear_digits
    images = data.load("digits").images[:12]
    found = _certify(module, images, FixedProcedure(SMOOTHING), batch_size)
    for each, image in zip(found, images, strict=True):
        prediction, radius = certify(
            module, image, *vars(SMOOTHING).values(), noise=Noise(3), index=40 + each.row
        )
        assert (each.prediction, each.radius) == (prediction, radius)
        assert each.noise_samples == SMOOTHING.noise_samples
    assert {each.prediction == ABSTAINED for each in found} == {True, False}
    if silent:
        assert found != _certify(linear_digits, images, FixedProcedure(SMOOTHING), batch_size)


@pytest.mark.parametrize("procedure", [FixedProcedure, SequentialProcedure])
def test_batch_size_changes_nothing(
    linear_digits: nn.Module, procedure: Callable[[Smoothing], Procedure]
) -> None:
    images = data.load("digits").images[:12]
    whole = _certify(linear_digits, images, procedure(SMOOTHING), 1000)
    assert whole == _certify(linear_digits, images, procedure(SMOOTHING), 17)
    # Nor does the company: a sample alone has the same certificate.
    assert _certify(linear_digits, images[:1], procedure(SMOOTHING), 64) == whole[:1]


def test_failure_probability_and_sigma_are_those_of_the_procedure(linear_digits: nn.Module) -> None:
    images = data.load("digits").images[:4]
    strict = replace(SMOOTHING, failure_probability=1e-9)
    for each, other in zip(
        _certify(linear_digits, images, FixedProcedure(SMOOTHING), 64),
        _certify(linear_digits, images, FixedProcedure(strict), 64),
        strict=True,
    ):
        assert each.certified_count == other.certified_count
        assert other.radius < each.radius or other.prediction == ABSTAINED
