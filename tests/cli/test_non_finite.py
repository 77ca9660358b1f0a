"""Images without an answer, through the commands: the numbers, the flag, the tables, the check."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import yaml
from click.testing import CliRunner
from torch import nn

from bench import data
from bench.cli import main
from bench.store import Store

STANDARDISED = """
from torch import nn


class Standardised(nn.Sequential):
    def forward(self, x):
        mean, deviation = x.mean((1, 2, 3), keepdim=True), x.std((1, 2, 3), keepdim=True)
        return super().forward((x - mean) / deviation * 0.376 + 0.3053)


def linear():
    return Standardised(nn.Flatten(), nn.Linear(64, 10))
"""


def test_black_images_are_wrong_whatever_their_label(
    write_submission: Callable[..., Path], linear_digits: nn.Module, tmp_path: Path
) -> None:
    """Black images have no deviation to divide by: three are labelled 0, one is labelled 5."""
    samples = data.load("digits").first(48)
    images, labels = samples.images.clone(), samples.labels.clone()
    images[40:44], labels[40:44] = 0.0, torch.tensor([0, 0, 0, 5])
    np.savez(tmp_path / "frames.npz", images=images.numpy(), labels=labels.numpy())
    suite = {
        "name": "frames",
        "version": 1,
        "title": "frames",
        "data": {"npz": "frames.npz"},
        "threat_model": {"norm": "Linf", "eps": 0.05},
        "protocols": {"standard": {"attacks": ["apgd-ce"]}},
    }
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump(suite))
    folder = write_submission(dataset="frames")
    (folder / "model.py").write_text(STANDARDISED)

    deviation, mean = torch.std_mean(images, dim=(1, 2, 3), keepdim=True)
    seen = torch.nan_to_num((images - mean) / deviation * 0.376 + 0.3053)
    with torch.no_grad():
        right = linear_digits(seen).argmax(dim=1) == labels
    right[40:44] = False

    where = ["--results-dir", str(tmp_path / "results")]
    arguments = ["--suite", str(tmp_path / "suite.yaml"), "--candidate", str(folder), *where]
    result = CliRunner().invoke(main, ["run", *arguments, "--report-dir", str(tmp_path / "pages")])
    assert result.exit_code == 0, result.output
    assert f"clean {100 * float(right.double().mean()):.2f}%" in result.output
    assert "flag non-finite-logits: measured 4 of 48 clean images" in result.output
    (summary,) = Store(tmp_path / "results").summaries("frames")
    table = Store(tmp_path / "results").folder(summary.manifest).samples()
    assert table["clean_correct"].tolist() == right.tolist()
    assert (table["clean_prediction"] == -1).to_numpy().nonzero()[0].tolist() == [40, 41, 42, 43]
    show = CliRunner().invoke(main, ["show", "frames/linear", *where])
    assert "non-finite-logits" in show.output
    assert show.exit_code == 0, show.output
    checked = CliRunner().invoke(main, ["verify", "frames/linear", *arguments])
    assert checked.exit_code == 0, checked.output
