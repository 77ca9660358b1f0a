"""CIFAR-10 and CIFAR-100: A. Krizhevsky, "Learning Multiple Layers of Features", 2009."""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path
from typing import Any

from bench.data.dataset import Dataset
from bench.data.download import download
from bench.data.registry import NamedDataset, register_dataset
from bench.data.request import Request
from bench.errors import InputError

TORCHVISION_CLASSES = {"cifar10": "CIFAR10", "cifar100": "CIFAR100"}
DOWNLOAD_MEGABYTES = {"cifar10": 170, "cifar100": 169}


def load(name: str, request: Request) -> Dataset:
    """Return samples from the official files, which are downloaded if their folder is missing.

    Raises:
        InputError: the download failed, or a file is missing or damaged.
    """
    import torch

    cifar, directory = _torchvision_class(name), request.directory
    folder = directory / cifar.base_folder
    if not folder.is_dir():
        download(lambda: cifar(directory, download=True), name, directory)
    train = request.split == "train"
    meta = [(cifar.meta["filename"], cifar.meta["md5"])]
    for filename, md5 in [*(cifar.train_list if train else cifar.test_list), *meta]:
        _check_file(folder / filename, md5, name)
    data = cifar(directory, train=train, download=False)
    images = torch.from_numpy(data.data).permute(0, 3, 1, 2).contiguous().float().div(255)
    labels = torch.tensor(data.targets, dtype=torch.int64)
    dataset = Dataset.whole(name, images, labels, tuple(data.classes))
    return dataset.take(request.choose(dataset.size))


def missing(name: str, directory: Path) -> str | None:
    """Return what has to be downloaded; None if the folder of the files exists."""
    if (directory / _torchvision_class(name).base_folder).is_dir():
        return None
    return f"{name}: a download of {DOWNLOAD_MEGABYTES[name]} MB to {directory}"


def _torchvision_class(name: str) -> Any:
    from bench.robustbench import check_torchvision

    check_torchvision()
    from torchvision import datasets

    return getattr(datasets, TORCHVISION_CLASSES[name])


def _check_file(path: Path, md5: str, name: str) -> None:
    hint = f"Restore it, or remove {path.parent} and run again to download {name}."
    if not path.is_file():
        raise InputError(f"{path}: missing, expected a file of {name}. {hint}")
    came = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    if came != md5:
        raise InputError(f"{path}: damaged, expected MD5 {md5}, got {came}. {hint}")


CIFAR10 = register_dataset(
    NamedDataset(
        name="cifar10",
        shape=(3, 32, 32),
        test_size=10_000,
        load=partial(load, "cifar10"),
        missing=partial(missing, "cifar10"),
        mean=(0.4914, 0.4822, 0.4465),
        standard_deviation=(0.2471, 0.2435, 0.2616),
        radii={"Linf": 8 / 255, "L2": 0.5},
        leaderboards=("Linf", "L2"),
        robustbench="cifar10",
    )
)
CIFAR100 = register_dataset(
    NamedDataset(
        name="cifar100",
        shape=(3, 32, 32),
        test_size=10_000,
        load=partial(load, "cifar100"),
        missing=partial(missing, "cifar100"),
        mean=(0.5071, 0.4865, 0.4409),
        standard_deviation=(0.2673, 0.2564, 0.2762),
        radii={"Linf": 8 / 255},
        leaderboards=("Linf",),
        robustbench="cifar100",
    )
)
