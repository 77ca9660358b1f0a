"""A candidate behind a name can be declared to be random."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.candidates.candidate import Candidate
from bench.candidates.registry import find_candidate
from bench.runs.settings import default_protocol
from bench.suites import load_suite

NOISY = """\
import torch


class Noisy(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(64, 10)
        with torch.no_grad():
            self.layer.weight.fill_(0.5)
            self.layer.bias.zero_()

    def forward(self, images):
        return self.layer((images + 0.1 * torch.randn_like(images)).flatten(1))
"""


def found(name: str) -> Candidate:
    return find_candidate(name, load_suite("digits-linf"), None, trust_code=True).load()


def test_a_name_declares_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "noisy_nets.py").write_text(NOISY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    plain, declared = (
        found("python:noisy_nets:Noisy"),
        found("python:noisy_nets:Noisy,randomized=true"),
    )
    assert not plain.randomized
    assert declared.randomized
    assert plain.weights_sha256 == declared.weights_sha256
    assert plain.definition_sha256 != declared.definition_sha256
    mixed = found(
        "mix:accurate=python:noisy_nets:Noisy,randomized=true,robust=digits-robust,alpha=0.5"
    )
    assert mixed.randomized


def test_it_is_attacked_adaptively_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "noisy_nets.py").write_text(NOISY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    suite = load_suite("digits-linf")
    assert default_protocol(found("python:noisy_nets:Noisy"), suite) == "standard"
    assert default_protocol(found("python:noisy_nets:Noisy,randomized=true"), suite) == "adaptive"
