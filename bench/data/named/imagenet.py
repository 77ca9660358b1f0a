"""ImageNet's 5,000 validation images that RobustBench evaluates on, from the user's own copy."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

from bench.data.dataset import Dataset
from bench.data.image_files import read_images
from bench.data.registry import NamedDataset, register_dataset
from bench.data.request import Request
from bench.errors import InputError

CLASSES = 1000
LAYOUT = "val/n01440764/ILSVRC2012_val_00000293.JPEG"
"""One file's place, as an example of all."""


def load(request: Request) -> Dataset:
    """Return validation images, after the candidate's own preprocessing.

    Raises:
        InputError: images are missing, or there is not one folder for each WordNet id.
    """
    import torch

    folder = request.directory / "val"
    synsets, files = _listing()
    _check_layout(folder, sorted({synset for synset, _ in files}))
    rows = request.choose(len(files))
    chosen = [files[row] for row in rows.tolist()]  # only the chosen files are decoded
    paths = [folder / synset / name for synset, name in chosen]
    images, _ = read_images(paths, "imagenet", preprocessing=request.preprocessing)
    labels = torch.tensor([synsets.index(synset) for synset, _ in chosen])
    return Dataset("imagenet", images, labels, rows, synsets, len(files))


def missing(directory: Path) -> str | None:
    """Return which folder is not there; None if it is."""
    folder = directory / "val"
    return None if folder.is_dir() else f"imagenet: {folder} (not downloadable; see README)"


@cache
def _listing() -> tuple[tuple[str, ...], list[tuple[str, str]]]:
    """Return the 1,000 WordNet ids in the order of classes, and (id, file) of each image."""
    from bench.robustbench import helper_file

    classes: dict[str, int] = json.loads(helper_file("imagenet_class_to_id_map.json"))
    places = helper_file("imagenet_test_image_ids.txt").split()
    return tuple(sorted(classes, key=classes.__getitem__)), [
        (synset, name) for synset, _, name in (place.partition("/") for place in places)
    ]


def _check_layout(folder: Path, needed: list[str]) -> None:
    expected = f"{folder}: expected ImageNet's validation images, one folder for each class"
    if not folder.is_dir():
        raise InputError(
            f"{expected}. They cannot be downloaded without an account: get them from "
            "image-net.org and name the folder above val/ by --data-dir."
        )
    folders = sorted(path.name for path in folder.iterdir() if path.is_dir())
    lacking = [synset for synset in needed if synset not in set(folders)]
    if not lacking:
        return
    known = set(_listing()[0])
    there = [name for name in folders if name in known]
    if there:
        came = f"{len(there)} of the {CLASSES:,} ({lacking[0]} and others are missing)"
        if len(lacking) == 1:
            came = f"none called {lacking[0]}"
    elif folders:
        others = f"{folders[0]} to {folders[-1]}" if len(folders) > 1 else folders[0]
        came = f"{len(folders):,} folders with other names ({others})"
    else:
        files = sum(1 for path in folder.iterdir() if path.is_file())
        came = f"{files:,} files and no folders"
    raise InputError(
        f"{expected}, called by its WordNet id as in {LAYOUT}; got {came}. The script valprep.sh "
        "of soumith/imagenetloader.torch moves the files there"
    )


register_dataset(
    NamedDataset(
        name="imagenet",
        shape=(3, 224, 224),
        test_size=5_000,
        load=load,
        missing=missing,
        mean=(0.485, 0.456, 0.406),
        standard_deviation=(0.229, 0.224, 0.225),
        radii={"Linf": 4 / 255, "L2": 0.5},
        leaderboards=("Linf",),
        robustbench="imagenet",
        preprocessed=True,
        training_folder="train",
    )
)
