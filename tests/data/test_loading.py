"""Data: the fixed digits split, users' own files, damaged and missing ones."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bench import data
from bench.errors import InputError
from bench.suites import DataSource


def test_digits_split_is_fixed_stratified_and_disjoint() -> None:
    train, test = data.load("digits", "train"), data.load("digits", "test")
    assert (len(train), len(test)) == (1437, 360)
    assert torch.bincount(test.labels).min() >= 34
    seen = {image.numpy().tobytes() for image in train.images}
    assert not any(image.numpy().tobytes() in seen for image in test.images)
    assert test.sha256().startswith("97d54757")
    assert test.first(10).sha256() != test.sha256()


def test_npz_and_folder_of_ones_own(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 5, 5, 3), dtype=np.uint8)
    np.savez(tmp_path / "own.npz", images=pixels, labels=np.array([0, 1, 1, 0]))
    for place, (image, label) in enumerate(zip(pixels, "abba", strict=True)):
        (tmp_path / "own" / label).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(tmp_path / "own" / label / f"{place}.png")
    archive = data.load_source(DataSource(npz=tmp_path / "own.npz"))
    folder = data.load_source(DataSource(folder=tmp_path / "own"), n_examples=3)
    assert archive.images.shape == (4, 3, 5, 5)
    assert len(folder) == 3
    assert folder.classes == ("a", "b")
    assert torch.equal(folder.images[0], archive.images[0])
    assert torch.equal(folder.images[1], archive.images[3])


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        ({"images": np.zeros((2, 1, 4, 4))}, "expected arrays `images` and `labels`, got images"),
        ({"images": np.full((1, 1, 4, 4), 2.0), "labels": np.zeros(1, int)}, r"values in \[2, 2\]"),
        ({"images": np.zeros((2, 4, 4)), "labels": np.zeros(2, int)}, "4 dimensions"),
        ({"images": np.zeros((0, 1, 4, 4)), "labels": np.zeros(0, int)}, "at least one image"),
    ],
)
def test_wrong_npz_is_named(tmp_path: Path, arrays: dict[str, np.ndarray], expected: str) -> None:
    np.savez(tmp_path / "own.npz", **arrays)
    with pytest.raises(InputError, match=rf"own\.npz: .*{expected}"):
        data.load_source(DataSource(npz=tmp_path / "own.npz"))


def test_too_many_examples_are_refused() -> None:
    with pytest.raises(InputError, match="at most 360 examples, the size of digits; got 361"):
        data.load_source(DataSource(name="digits"), n_examples=361)


@pytest.mark.cifar
def test_damaged_and_missing_cifar_files_are_named(data_dir: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    shutil.copytree(data_dir / "cifar-10-batches-py", folder)
    assert data.load("cifar10", "test", tmp_path).labels[:5].tolist() == [3, 8, 8, 0, 6]
    path = folder / "test_batch"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(InputError, match=r"test_batch: damaged, expected MD5 40351d5.*Restore it"):
        data.load("cifar10", "test", tmp_path)
    path.unlink()
    with pytest.raises(InputError, match="test_batch: missing"):
        data.load("cifar10", "test", tmp_path)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"spilt": "test"}, "unexpected keyword argument 'spilt'"),
        ({"split": "tset"}, "field arguments: Unknown value 'tset' for argument split"),
    ],
)
def test_misspelt_torchvision_arguments_are_named(
    tmp_path: Path, arguments: dict[str, str], expected: str
) -> None:
    with pytest.raises(InputError, match=rf"torchvision\.datasets\.SVHN: .*{expected}"):
        data.load_source(DataSource(torchvision="SVHN", arguments=arguments), tmp_path)


@pytest.mark.cifar
def test_torchvision_by_name_equals_the_named_data_set(data_dir: Path) -> None:
    source = DataSource(torchvision="CIFAR10", arguments={"train": False})
    ours = data.load("cifar10", "test", data_dir)
    theirs = data.load_source(source, data_dir, n_examples=50)
    assert torch.equal(theirs.images, ours.images[:50])
    assert theirs.classes == ours.classes
    with pytest.raises(InputError, match=r"expected a data set of torchvision\.datasets"):
        data.load_source(DataSource(torchvision="Nothing"), data_dir)


def test_imagenet_takes_robustbenchs_images_after_the_models_preprocessing(tmp_path: Path) -> None:
    from importlib import resources

    import bench.robustbench as shim

    with pytest.raises(InputError, match=r"val: expected ImageNet's validation images"):
        data.load_source(DataSource(name="imagenet"), tmp_path, 2)
    listing = resources.files("robustbench") / "helper_files" / "imagenet_test_image_ids.txt"
    wanted = listing.read_text().split()
    # The 5,000 images are of 997 classes; the validation set has folders for all 1,000.
    for name in {Path(each).parent.name for each in wanted} | {
        "n99999997",
        "n99999998",
        "n99999999",
    }:
        (tmp_path / "val" / name).mkdir(parents=True)
    for name in wanted[:2]:
        Image.new("RGB", (300, 280), (255, 0, 51)).save(tmp_path / "val" / name, "JPEG")
    preprocessing = shim.preprocessing("Salman2020Do_R18", "imagenet", "Linf")
    samples = data.load_source(DataSource(name="imagenet"), tmp_path, 2, preprocessing)
    assert samples.images.shape == (2, 3, 224, 224)
    assert (samples.size, len(samples.classes)) == (5000, 1000)
    assert samples.images[0, :, 0, 0].tolist() == pytest.approx([1, 0, 0.2], abs=0.02)
