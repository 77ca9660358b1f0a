"""A new data set: one record, through public interfaces only."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from bench.candidates.submission import read_submission
from bench.data import Dataset, NamedDataset, Request, load, named_datasets, register_dataset
from tests.extensions.runs import call, page, run, write_suite

NAME = "inverted-digits"

INVERTING = """
class Inverting(nn.Sequential):
    def forward(self, images):
        return super().forward(1 - images)
"""


def _load(request: Request) -> Dataset:
    """Return the digits in black on white."""
    digits = load("digits", request.split)
    inverted = Dataset.whole(NAME, 1 - digits.images, digits.labels, digits.classes)
    return inverted.take(request.choose(inverted.size))


INVERTED = NamedDataset(name=NAME, shape=(1, 8, 8), test_size=360, load=_load, radii={"Linf": 0.2})


def test_a_data_set_from_outside_is_named_in_a_suite(
    tmp_path: Path, write_submission: Callable[..., Path]
) -> None:
    if NAME not in named_datasets():
        register_dataset(INVERTED)
    folder = write_submission("linear", dataset=NAME)
    code = (folder / "model.py").read_text().replace("return nn.Sequential(", "return Inverting(")
    (folder / "model.py").write_text(f"{code}\n{INVERTING}")
    assert read_submission(folder).dataset == NAME
    suite = write_suite(tmp_path, "inverted", "standard: {attacks: [apgd-ce]}", data=NAME)
    result = run(tmp_path, suite, folder)
    assert result.exit_code == 0, result.output
    assert "clean      100.00%" in call(tmp_path, "show", "inverted/linear").output
    where = ["--suite", str(suite), "--candidate", str(folder)]
    verified = call(tmp_path, "verify", "inverted/linear", *where)
    assert verified.exit_code == 0, verified.output
    assert NAME in page(tmp_path, "inverted")
    assert torch.equal(load(NAME).images, 1 - load("digits").images)
