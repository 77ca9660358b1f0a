"""`bench run` on a user's own images: the numbers of an independent computation, or one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner, Result
from PIL import Image
from torch import nn

from bench import data
from bench.candidates.registry import find_candidate
from bench.candidates.weights import file_sha256
from bench.cli import main
from bench.store import Store
from bench.store.summary import Summary
from bench.suites import load_suite
from tests.data.files import write_16_bit_png

N = 60
MODEL = """
import torch


class Grey(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(64, 10)

    def forward(self, images):
        return self.layer(images.mean(1).flatten(1))


def build():
    return Grey()
"""


class Own:
    """A suite on images of one's own and the digits' linear classifier as its candidate."""

    def __init__(self, folder: Path, linear: nn.Module) -> None:
        self.folder = folder
        self.digits = data.load("digits").first(N)
        with torch.no_grad():
            self.right = linear(self.digits.images).argmax(1) == self.digits.labels
        self.submission = folder / "net"
        self.submission.mkdir()
        (self.submission / "model.py").write_text(MODEL)
        layer = linear[1]  # type: ignore[index]
        torch.save(
            {f"layer.{name}": tensor for name, tensor in layer.state_dict().items()},
            self.submission / "weights.pt",
        )

    @property
    def levels(self) -> np.ndarray:
        """The images' values (N, 8, 8) in [0, 1]."""
        return self.digits.images[:, 0].numpy()

    def run(self, **source: Any) -> Result:
        """Call `bench run`; the source is a path relative to the folder, and further fields."""
        label = Path(source.get("folder", source.get("npz", ""))).stem
        suite = {
            "name": "own",
            "version": 1,
            "title": "Own",
            "data": source,
            "threat_model": {"norm": "Linf", "eps": 0.02},
            "protocols": {"standard": {"attacks": ["apgd-ce"]}},
        }
        (self.folder / "suite.yaml").write_text(yaml.safe_dump(suite))
        description = {
            "name": "net",
            "dataset": label,
            "architecture": "model:build",
            "weights": "weights.pt",
            "sha256": file_sha256(self.submission / "weights.pt"),
        }
        (self.submission / "submission.yaml").write_text(yaml.safe_dump(description))
        arguments = ["run", "--suite", str(self.folder / "suite.yaml"), "--candidate"]
        arguments += [str(self.submission), "--results-dir", str(self.folder / "results")]
        return CliRunner().invoke(main, [*arguments, "--report-dir", str(self.folder / "reports")])

    def summary(self) -> Summary:
        """The newest run's."""
        runs = [run for run in Store(self.folder / "results").runs("own") if run.is_complete]
        return max((run.summary() for run in runs), key=lambda each: each.finished)


@pytest.fixture
def own(tmp_path: Path, linear_digits: nn.Module) -> Own:
    return Own(tmp_path, linear_digits)


def _write(path: Path, values: np.ndarray, kind: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    levels = np.rint(values * 255).astype(np.uint8)
    if kind == "16 bits":
        write_16_bit_png(path, np.rint(values * 65535).astype(np.uint16)[..., None])
    elif kind == "alpha":
        white = np.full((*values.shape, 3), 255, np.uint8)
        Image.fromarray(np.concatenate([white, levels[..., None]], axis=2)).save(path)
    else:
        Image.fromarray(levels).save(path)


@pytest.mark.parametrize("kind", ["8 bits", "16 bits", "alpha"])
def test_image_files_are_read_as_they_are_stored(own: Own, kind: str) -> None:
    for place, (values, label) in enumerate(zip(own.levels, own.digits.labels, strict=True)):
        _write(own.folder / "images" / str(int(label)) / f"{place}.png", values, kind)
    result = own.run(folder="images", channels=1)
    assert result.exit_code == 0, result.output
    assert own.summary().clean_accuracy == pytest.approx(float(own.right.float().mean()))
    assert own.summary().manifest.dataset.classes == tuple("0123456789")
    assert ("composited on black" in result.output) == (kind == "alpha")


def test_the_order_of_class_folders_decides_and_is_recorded(own: Own) -> None:
    names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    for place, (values, label) in enumerate(zip(own.levels, own.digits.labels, strict=True)):
        _write(own.folder / "images" / names[int(label)] / f"{place}.png", values, "8 bits")
    wrong = own.run(folder="images")  # as text: eight, five, four, ...
    assert wrong.exit_code == 0
    assert "net: chance-level-accuracy: The clean accuracy is no better than" in wrong.output
    assert [flag.name for flag in own.summary().flags] == ["chance-level-accuracy"]
    first = own.summary().run
    right = own.run(folder="images", class_order=names)
    assert "chance-level" not in right.output
    assert own.summary().clean_accuracy == pytest.approx(float(own.right.float().mean()))
    assert own.summary().manifest.dataset.classes == tuple(names)
    assert own.summary().run != first
    assert own.summary().flags == []


def test_arrays_with_fewer_classes_than_outputs(own: Own) -> None:
    few = own.digits.labels < 7
    images, labels = own.digits.images[few].numpy(), own.digits.labels[few].numpy()
    np.savez(own.folder / "mine.npz", images=images, labels=labels)
    refused = own.run(npz="mine.npz")
    assert refused.exit_code == 2
    assert "mine shows 7 classes, the network has 10 outputs" in refused.output
    assert len(refused.output.splitlines()) == 1
    assert own.run(npz="mine.npz", classes=10).exit_code == 0
    assert own.summary().clean_accuracy == pytest.approx(float(own.right[few].float().mean()))


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        ({"images": np.eye(8, dtype=np.uint8)[None, None], "labels": [0]}, "if 1 is white, save"),
        (
            {"images": np.ones((1, 1, 8, 8)), "labels": [0], "classes": np.array(["a"], object)},
            "save np.array(classes, dtype=str)",
        ),
    ],
)
def test_arrays_that_are_not_certain_take_one_line(
    own: Own, arrays: dict[str, Any], expected: str
) -> None:
    np.savez(own.folder / "mine.npz", **arrays)
    result = own.run(npz="mine.npz")
    assert result.exit_code == 2
    assert len(result.output.splitlines()) == 1
    assert expected in result.output


@pytest.mark.cifar
def test_folders_0_to_99_are_classes_0_to_99(tmp_path: Path, data_dir: Path) -> None:
    test = data.load("cifar100", "test", data_dir)
    chosen = [int((test.labels == label).nonzero()[0, 0]) for label in range(100)]
    for place in chosen:
        folder = tmp_path / "photos" / str(int(test.labels[place]))
        folder.mkdir(parents=True)
        pixels = np.rint(test.images[place].permute(1, 2, 0).numpy() * 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "it.png")
    photos = data.load_source(data.DataSource(folder=tmp_path / "photos"))
    assert torch.equal(photos.images, test.images[chosen])
    assert photos.labels.tolist() == list(range(100))
    assert "torchvision's ImageFolder sorts them as text" in photos.notices[0]
    network = find_candidate("cifar100-standard", load_suite("cifar100-linf")).load().module
    with torch.no_grad():
        accuracy = (network(photos.images).argmax(1) == photos.labels).float().mean()
    assert accuracy > 0.6
