"""Clean predictions of a candidate that raises an error on some images."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bench import data
from bench.auditing.checklist import checklist
from bench.auditing.clean import predict_clean
from bench.candidates import Candidate
from bench.runs.fingerprint import probe_images, probed
from tests.audit.records import loaded, records
from tests.audit.test_given_runs import CPU, job_in


class _Fails(nn.Module):
    """Raises an error where the first pixels are those of some images."""

    def __init__(self, network: nn.Module, images: Tensor) -> None:
        super().__init__()
        self.network = network
        self.odd = images.flatten(1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, K)."""
        if bool((torch.cdist(images.flatten(1), self.odd) == 0).any()):
            raise ValueError("this digit is too odd")
        logits: Tensor = self.network(images)
        return logits


def _candidate(network: nn.Module, images: Tensor) -> Candidate:
    return Candidate("odd", _Fails(network, images), {"weights": "1" * 64}, "2" * 64)


def test_an_image_on_which_the_candidate_fails_counts_as_wrong(
    linear_digits: nn.Module, tmp_path: Path
) -> None:
    digits, odd = data.load("digits"), [3, 200]
    fine = Candidate("fine", linear_digits, {"weights": "1" * 64}, "2" * 64)
    expected = predict_clean(job_in(tmp_path), fine, digits, CPU)
    candidate = _candidate(linear_digits, digits.images[odd])
    clean = predict_clean(job_in(tmp_path), candidate, digits, CPU)
    assert clean.failed == odd
    assert expected.failed == []
    assert clean.right == [
        right and index not in odd
        for index, right in zip(expected.indices, expected.right, strict=True)
    ]
    made = records(0.5).model_copy(update={"clean": clean})
    row = next(each for each in checklist(made, []) if each.what.startswith("clean"))
    assert "of which 2 count as wrong" in row.figure


def test_a_candidate_that_fails_on_everything_says_its_error(
    linear_digits: nn.Module, tmp_path: Path
) -> None:
    digits = data.load("digits").first(60)
    with pytest.raises(ValueError, match="this digit is too odd"):
        predict_clean(job_in(tmp_path), _candidate(linear_digits, digits.images), digits, CPU)


def test_an_error_on_the_probe_images_is_no_answer_that_varies(linear_digits: nn.Module) -> None:
    images = probe_images((1, 8, 8))
    answers = probed(_candidate(linear_digits, images), images, CPU)
    assert not answers.vary
    assert "this digit is too odd" in answers.problem
    assert loaded(fingerprint_problem=answers.problem).may_vary
    made = records(0.5).model_copy(update={"loaded": loaded(fingerprint_problem=answers.problem)})
    row = next(each for each in checklist(made, []) if each.what.startswith("randomness"))
    assert "vary from pass to pass" not in row.figure
    assert "too odd" in row.figure
