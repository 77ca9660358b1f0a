"""Models in float16, bfloat16 and float64 become candidates that take images in float32."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bench
from bench import data
from bench.candidates.live import live_reference
from bench.candidates.own_type import in_own_type, own_type
from bench.candidates.registry import find_candidate
from bench.candidates.wrapped import Wrapped, wrap
from bench.suites import load_suite

SHAPE = (1, 8, 8)
TYPES = (torch.float16, torch.bfloat16, torch.float64)


class _InParts(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        logits: Tensor = self.network(images)
        return {"features": images, "logits": logits}


def _network(dtype: torch.dtype) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).to(dtype).eval()


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("form", ["plain", "in parts", "wrapped"])
def test_a_model_in_another_type_takes_float32_and_has_gradients(
    dtype: torch.dtype, form: str
) -> None:
    network = _network(dtype)
    made: nn.Module = network
    if form == "in parts":
        made = _InParts(network)
    if form == "wrapped":
        made = wrap(network, mean=0.25, std=0.5)
    candidate = live_reference(made, "model", shape=SHAPE).load()
    images = torch.rand(3, *SHAPE, requires_grad=True)
    logits = candidate.module(images)
    given = (images - 0.25) / 0.5 if form == "wrapped" else images
    assert logits.dtype == torch.float32
    assert torch.equal(logits, network(given.to(dtype)).float())
    logits.sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0
    name = str(dtype).removeprefix("torch.")
    assert any(f"in {name}" in note for note in candidate.information.conversions)


def test_the_model_of_the_user_stays_as_it_is() -> None:
    made = wrap(_network(torch.float16), mean=0.25)
    converted, _ = in_own_type(made, SHAPE)
    assert isinstance(converted, Wrapped)
    assert converted is not made
    assert isinstance(made.model, nn.Sequential)


class _Converts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.network = _network(torch.float64)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images.double())
        return logits


@pytest.mark.parametrize("make", [lambda: _network(torch.float32), _Converts, nn.Flatten])
def test_what_takes_float32_already_is_left_alone(make: Any) -> None:
    module = make()
    assert in_own_type(module, SHAPE) == (module, ())


def test_numbers_of_two_types_are_no_type() -> None:
    assert own_type(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).half())) is None


def test_a_float16_model_is_evaluated(tmp_path: Path) -> None:
    digits = data.load("digits").first(6)
    result = bench.evaluate(
        _network(torch.float16),
        images=digits.images,
        labels=digits.labels,
        threat_model=bench.Linf(0.3),
        results_dir=tmp_path,
    )
    assert result.n_examples == 6


def test_a_submission_in_float16_is_loaded(write_submission: Callable[..., Path]) -> None:
    folder = write_submission()
    code = (folder / "model.py").read_text().replace("layer)", "layer).half()")
    (folder / "model.py").write_text(code)
    candidate = find_candidate(str(folder), load_suite("digits-linf"), None, True).load()
    assert candidate.module(torch.rand(2, *SHAPE)).dtype == torch.float32
    assert any("in float16" in note for note in candidate.information.conversions)


def test_a_named_function_in_float16_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "half_networks.py").write_text(
        "from torch import nn\n\n\ndef build():\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).half()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    candidate = find_candidate(
        "python:half_networks:build", load_suite("digits-linf"), None, True
    ).load()
    assert candidate.module(torch.rand(2, *SHAPE)).dtype == torch.float32
    assert any("in float16" in note for note in candidate.information.conversions)
