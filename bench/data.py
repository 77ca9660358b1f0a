"""Images and labels: the data sets by name, torchvision's classes, image folders, .npz files."""

from __future__ import annotations

import contextlib
import hashlib
import io
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import platformdirs
import torch
from torch import Tensor

from bench.errors import InputError
from bench.suites import DataSource, ThreatModel

Split = Literal["train", "test"]

CIFAR_CLASSES = {"cifar10": "CIFAR10", "cifar100": "CIFAR100"}
CIFAR_DOWNLOAD_MEGABYTES = {"cifar10": 170, "cifar100": 169}
DIGITS_TEST_SIZE = 360
DIGITS_SPLIT_SEED = 0


@dataclass(frozen=True)
class Dataset:
    """Labelled images, in the order of the data set.

    Attributes:
        name: as recorded.
        images: (N, C, H, W) float32 in [0, 1].
        labels: (N,) int64 in [0, K).
        indices: (N,) int64, each sample's place in the whole data set.
        classes: the K class names.
        size: how many samples the whole data set has, >= N.
    """

    name: str
    images: Tensor
    labels: Tensor
    indices: Tensor
    classes: tuple[str, ...]
    size: int

    def __len__(self) -> int:
        return len(self.labels)

    def first(self, n: int) -> Dataset:
        """The first `n` samples."""
        return self.take(torch.arange(min(n, len(self))))

    def take(self, rows: Tensor) -> Dataset:
        """The samples in `rows` (n,), in that order."""
        return Dataset(
            self.name,
            self.images[rows],
            self.labels[rows],
            self.indices[rows],
            self.classes,
            self.size,
        )

    def every(self, step: int) -> Dataset:
        """The first sample and every `step`-th after it."""
        return Dataset(
            self.name,
            self.images[::step],
            self.labels[::step],
            self.indices[::step],
            self.classes,
            self.size,
        )

    def sha256(self) -> str:
        """Digest of images and labels: two data sets with the same digest hold the same samples."""
        digest = hashlib.sha256()
        for tensor in (self.images, self.labels, self.indices):
            digest.update(repr(tuple(tensor.shape)).encode())
            digest.update(np.ascontiguousarray(tensor.numpy()).data.cast("B"))
        return digest.hexdigest()


IMAGE_SHAPES: dict[str, tuple[int, int, int]] = {
    "digits": (1, 8, 8),
    "cifar10": (3, 32, 32),
    "cifar100": (3, 32, 32),
    "imagenet": (3, 224, 224),
}
"""(C, H, W) of the data sets that are known by name."""


def check_radius(threat_model: ThreatModel, source: DataSource, origin: str) -> None:
    """Refuse a ball in L2 that holds every image, where a data set's image size is known.

    Args:
        source: of the images.
        origin: of the radius, for the message.

    Raises:
        InputError: the radius is at least the diagonal of the cube of all images.
    """
    if threat_model.norm != "L2" or source.name is None:
        return
    shape = IMAGE_SHAPES[source.name]
    diagonal = math.sqrt(math.prod(shape))
    if threat_model.eps >= diagonal:
        raise InputError(
            f"{origin}: expected less than {diagonal:.4g}, the L2 distance of a black and a white "
            f"image of {source.name}, of shape {shape}; got {threat_model.eps:g}"
        )


def default_data_dir() -> Path:
    """Where data sets are looked for, and put when downloaded, unless the user says otherwise."""
    configured = os.environ.get("BENCH_DATA_DIR")
    return (
        Path(configured) if configured else platformdirs.user_cache_path("tradeoff-bench") / "data"
    )


def load(name: str, split: Split = "test", data_dir: Path | None = None) -> Dataset:
    """A whole data set by name: digits, cifar10 or cifar100.

    Args:
        split: "train" or "test".
        data_dir: folder of the files; None: `default_data_dir()`.

    Raises:
        InputError: missing files that cannot be downloaded, or damaged files.
    """
    if name == "digits":
        return _digits(split)
    if name in CIFAR_CLASSES:
        return _cifar(name, split, data_dir or default_data_dir())
    raise InputError(f"expected data set digits, cifar10 or cifar100; got {name!r}")


def load_source(
    source: DataSource,
    data_dir: Path | None = None,
    n_examples: int | None = None,
    preprocessing: Callable[[Any], Tensor] | None = None,
    choose: Callable[[int], Tensor] | None = None,
) -> Dataset:
    """The test samples of a suite.

    Args:
        n_examples: only the first so many; None: all.
        choose: from the data set's size to the rows (n,) that are wanted, instead of `n_examples`.
        preprocessing: from a PIL image to (C, H, W) in [0, 1]; for ImageNet, where each model
            has its own, and for folders of images of different sizes.

    Raises:
        InputError: missing or damaged data, or `n_examples` beyond the data set.
    """
    directory = data_dir or default_data_dir()
    choose = choose or (lambda size: _first(size, n_examples, source.label))
    if source.name == "imagenet":
        return _imagenet(directory, choose, preprocessing)
    if source.name is not None:
        dataset = load(source.name, "test", directory)
    elif source.torchvision is not None:
        dataset = _torchvision(source, directory, preprocessing)
    elif source.folder is not None:
        dataset = _folder(source.folder, preprocessing)
    else:
        assert source.npz is not None
        dataset = _npz(source.npz)
    return dataset.take(choose(dataset.size))


def _first(size: int, n: int | None, name: str) -> Tensor:
    if n is not None and n > size:
        raise InputError(f"expected at most {size} examples, the size of {name}; got {n}")
    return torch.arange(size if n is None else n)


def missing(source: DataSource, data_dir: Path | None = None) -> str | None:
    """What is not on this disk yet, with the size of the download where known; None if all is."""
    directory = data_dir or default_data_dir()
    if source.name in CIFAR_CLASSES:
        folder = directory / _cifar_class(source.name).base_folder
        size = CIFAR_DOWNLOAD_MEGABYTES[source.name]
        return None if folder.is_dir() else f"{source.name}: a download of {size} MB to {directory}"
    if source.name == "imagenet":
        folder = directory / "val"
        return None if folder.is_dir() else f"imagenet: {folder} (not downloadable; see README)"
    for path in (source.folder, source.npz):
        if path is not None and not path.exists():
            return str(path)
    return None


def _digits(split: Split) -> Dataset:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    train, test = train_test_split(
        np.arange(len(bunch.target)),
        test_size=DIGITS_TEST_SIZE,
        stratify=bunch.target,
        random_state=DIGITS_SPLIT_SEED,
    )
    chosen = np.sort(test if split == "test" else train)
    images = torch.from_numpy(bunch.images[chosen] / 16.0).float().unsqueeze(1)
    return Dataset(
        name="digits",
        images=images,
        labels=torch.from_numpy(bunch.target[chosen]).long(),
        indices=torch.arange(len(chosen)),
        classes=tuple(str(digit) for digit in bunch.target_names),
        size=len(chosen),
    )


def _cifar_class(name: str) -> Any:
    from bench.robustbench import check_torchvision

    check_torchvision()
    from torchvision import datasets

    return getattr(datasets, CIFAR_CLASSES[name])


def _cifar(name: str, split: Split, directory: Path) -> Dataset:
    cifar = _cifar_class(name)
    folder = directory / cifar.base_folder
    if not folder.is_dir():
        _download(lambda: cifar(directory, download=True), name, directory)
    wanted = cifar.train_list if split == "train" else cifar.test_list
    meta = [(cifar.meta["filename"], cifar.meta["md5"])]
    for filename, md5 in [*wanted, *meta]:
        _check_file(folder / filename, md5, name)
    data = cifar(directory, train=split == "train", download=False)
    images = torch.from_numpy(data.data).permute(0, 3, 1, 2).contiguous().float().div(255)
    labels = torch.tensor(data.targets, dtype=torch.int64)
    n = len(labels)
    return Dataset(name, images, labels, torch.arange(n), tuple(data.classes), n)


def _download(fetch: Callable[[], Any], name: str, directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with contextlib.redirect_stdout(io.StringIO()):
            fetch()
    except Exception as error:  # torchvision raises whatever the network layer raised
        raise InputError(
            f"{name}: not in {directory}, and the download failed: {type(error).__name__}: "
            f"{error}. Put the official files there, or name their folder by --data-dir or "
            "BENCH_DATA_DIR."
        ) from error


def _check_file(path: Path, md5: str, name: str) -> None:
    hint = f"Restore it, or remove {path.parent} and run again to download {name}."
    if not path.is_file():
        raise InputError(f"{path}: missing, expected a file of {name}. {hint}")
    came = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    if came != md5:
        raise InputError(f"{path}: damaged, expected MD5 {md5}, got {came}. {hint}")


def _imagenet(
    directory: Path,
    choose: Callable[[int], Tensor],
    preprocessing: Callable[[Any], Tensor] | None,
) -> Dataset:
    from bench.robustbench import imagenet_samples

    size, classes, samples = imagenet_samples(directory)
    rows = choose(size)
    chosen = [samples[row] for row in rows.tolist()]  # only what is wanted is decoded
    images, labels = _read_images(chosen, preprocessing, "imagenet")
    return Dataset("imagenet", images, labels, rows, classes, size)


def _folder(folder: Path, preprocessing: Callable[[Any], Tensor] | None) -> Dataset:
    from torchvision.datasets import ImageFolder

    try:
        listing = ImageFolder(str(folder))
    except (FileNotFoundError, OSError) as error:
        raise InputError(
            f"{folder}: expected a folder with one subfolder of images a class; {error}"
        ) from error
    samples = [(Path(path), label) for path, label in listing.samples]
    images, labels = _read_images(samples, preprocessing, folder.name)
    n = len(samples)
    return Dataset(folder.name, images, labels, torch.arange(n), tuple(listing.classes), n)


def _read_images(
    samples: list[tuple[Path, int]], preprocessing: Callable[[Any], Tensor] | None, name: str
) -> tuple[Tensor, Tensor]:
    from PIL import Image, UnidentifiedImageError
    from torchvision.transforms.functional import to_tensor

    transform = preprocessing or to_tensor
    images: list[Tensor] = []
    for path, _ in samples:
        try:
            with Image.open(path) as image:
                images.append(transform(image.convert("RGB")))
        except (FileNotFoundError, UnidentifiedImageError, OSError) as error:
            raise InputError(f"{path}: expected an image of {name}; {error}") from error
        if images[-1].shape != images[0].shape:
            raise InputError(
                f"{path}: expected an image of shape {tuple(images[0].shape)} as the first one "
                f"has, got {tuple(images[-1].shape)}; resize the images to one size"
            )
    return torch.stack(images), torch.tensor([label for _, label in samples])


def _torchvision(
    source: DataSource, directory: Path, preprocessing: Callable[[Any], Tensor] | None
) -> Dataset:
    from torchvision import datasets
    from torchvision.transforms.functional import to_tensor

    name = str(source.torchvision)
    kind = getattr(datasets, name, None)
    if not (isinstance(kind, type) and issubclass(kind, datasets.VisionDataset)):
        raise InputError(f"expected a data set of torchvision.datasets, got {name!r}")
    transform = preprocessing or to_tensor
    items: Any
    try:
        items = kind(str(directory), transform=transform, **source.arguments)
    except RuntimeError:
        arguments = {**source.arguments, "download": True}
        _download(lambda: kind(str(directory), **arguments), name, directory)
        items = kind(str(directory), transform=transform, **source.arguments)
    except (TypeError, ValueError) as error:
        raise InputError(f"torchvision.datasets.{name}: field arguments: {error}") from error
    pairs = [items[position] for position in range(len(items))]
    images = torch.stack([image for image, _ in pairs])
    labels = torch.tensor([int(label) for _, label in pairs])
    classes = tuple(getattr(items, "classes", None) or map(str, range(int(labels.max()) + 1)))
    return Dataset(source.label, images, labels, torch.arange(len(pairs)), classes, len(pairs))


def _npz(path: Path) -> Dataset:
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except Exception as error:  # zipfile and numpy raise many kinds for a damaged archive
        raise InputError(f"{path}: damaged or not an .npz file: {error}") from error
    for key in ("images", "labels"):
        if key not in arrays:
            came = ", ".join(arrays) or "none"
            raise InputError(f"{path}: expected arrays `images` and `labels`, got {came}")
    images, labels = arrays["images"], arrays["labels"]
    if images.ndim != 4 or labels.shape != images.shape[:1]:
        raise InputError(
            f"{path}: expected images of 4 dimensions and one label an image; got shapes "
            f"{images.shape} and {labels.shape}"
        )
    if not images.size:
        raise InputError(f"{path}: expected at least one image, got shape {images.shape}")
    if images.shape[1] not in (1, 3) and images.shape[3] in (1, 3):
        images = images.transpose(0, 3, 1, 2)
    scaled = images / np.float32(255) if images.dtype == np.uint8 else images
    tensor = torch.from_numpy(np.ascontiguousarray(scaled, dtype=np.float32))
    low, high = float(tensor.min()), float(tensor.max())
    if not (low >= 0 and high <= 1):
        raise InputError(f"{path}: expected images in [0, 1], got values in [{low:g}, {high:g}]")
    if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0:
        raise InputError(f"{path}: expected labels that are integers >= 0, got {labels.dtype}")
    n = len(labels)
    classes = (
        tuple(str(name) for name in arrays["classes"])
        if "classes" in arrays
        else tuple(str(label) for label in range(int(labels.max()) + 1))
    )
    return Dataset(path.stem, tensor, torch.from_numpy(labels).long(), torch.arange(n), classes, n)
