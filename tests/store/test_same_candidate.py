"""When two runs are of one candidate: digests and fingerprints."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from bench.candidates import Candidate
from bench.runs.fingerprint import PROBES, fingerprint, probe_images
from bench.store.same_candidate import same_answers, same_candidate
from tests.pages.runs import make_manifest

CPU = torch.device("cpu")
SHAPE = (1, 8, 8)


def _fingerprint(module: nn.Module, randomized: bool = False) -> list[str] | None:
    candidate = Candidate("c", module.eval(), {}, "", randomized=randomized)
    return fingerprint(candidate, SHAPE, CPU)


def test_digests_fingerprints_and_identification_must_agree() -> None:
    one = make_manifest("digits-linf", "one", 10, fingerprint=["1 2", "3 4"])
    changes = {"candidate": "a copy", "seed": 3, "fingerprint": ["1.001 2", "3 4"]}
    assert same_candidate(one, one.model_copy(update=changes))
    for change in (
        {"weights_sha256": {"weights": "0" * 64}},
        {"definition_sha256": "0" * 64},
        {"fingerprint": ["2 1", "3 4"]},
        {"fingerprint": None},
        {"unidentified": ["log: cannot be read"]},
        {"unidentified": None},
    ):
        assert not same_candidate(one, one.model_copy(update=change))
    unidentified = one.model_copy(update={"unidentified": ["log"]})
    assert not same_candidate(unidentified, unidentified)


def test_fingerprints_survive_rounding_and_notice_another_network(
    linear_digits: nn.Module,
) -> None:
    images = probe_images(SHAPE)
    assert images.shape == (PROBES, *SHAPE)
    assert 0 <= images.min() < 0.1
    assert 0.9 < images.max() <= 1
    own = _fingerprint(linear_digits)
    assert own is not None
    exact = nn.Sequential(_Double(), copy.deepcopy(linear_digits).double())
    assert same_answers(own, _fingerprint(exact))
    assert not same_answers(own, _fingerprint(nn.Sequential(linear_digits, _Rolled())))


class _Double(nn.Module):
    """Images in float64."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.double()


class _Rolled(nn.Module):
    """Other classes."""

    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        return logits.roll(1, dims=1)


@pytest.mark.parametrize(
    ("one", "other", "agree"),
    [
        (["nan 1 2"], ["nan 1 2"], True),
        (["nan 1 2"], ["0 1 2"], False),
        (["0 1 2"], ["nan 1 2"], False),
        (["inf 1"], ["-inf 1"], False),
        (["1 1 1"], ["1 1 1.1"], False),
        (["1 2"], ["1 2 3"], False),
        (["0 0"], ["0 0"], True),
        (["-1e30 1"], ["-1e30 1"], True),
    ],
)
def test_answers_that_are_no_usual_numbers(one: list[str], other: list[str], agree: bool) -> None:
    assert same_answers(one, other) is agree


def test_answers_that_vary_have_no_fingerprint() -> None:
    noisy = nn.Sequential(nn.Flatten(), nn.Dropout(0.5))
    noisy.eval()
    assert _fingerprint(noisy, randomized=True) is None

    class Noise(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.flatten(1) + torch.randn(64)

    assert _fingerprint(Noise()) is None
