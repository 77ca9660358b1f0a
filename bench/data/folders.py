"""A user's own image files, in one folder a class."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.data.class_names import folder_order, listed, outputs_of
from bench.data.dataset import Dataset
from bench.data.image_files import read_images
from bench.data.request import Request
from bench.data.source import DataSource
from bench.data.value_range import range_notices
from bench.errors import InputError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""As torchvision's ImageFolder has them."""
NO_CLASSES = ("__MACOSX",)
LITTER = ("thumbs.db", "desktop.ini")
PARTS = frozenset({"train", "training", "val", "valid", "validation", "test", "testing"})


@dataclass(frozen=True)
class ClassFolders:
    """Image files by class.

    Attributes:
        files: the files, sorted by class, then by path.
        labels: for each file, the place of its class in `classes`.
        classes: the classes, in the order of the network's outputs.
        notices: messages about the order and about files that were left out.
    """

    files: tuple[Path, ...]
    labels: tuple[int, ...]
    classes: tuple[str, ...]
    notices: tuple[str, ...]


def load(source: DataSource, request: Request) -> Dataset:
    """Return samples of a folder with one subfolder of images for each class.

    Raises:
        InputError: the folder has another layout, or a file is ambiguous.
    """
    import torch

    assert source.folder is not None
    found = list_classes(source.folder, source.classes, source.class_order)
    rows = request.choose(len(found.files))
    chosen = [found.files[row] for row in rows.tolist()]  # only the chosen files are decoded
    images, notices = read_images(chosen, source.label, source.channels or 3, request.preprocessing)
    return Dataset(
        source.label,
        images,
        torch.tensor(found.labels)[rows],
        rows,
        found.classes,
        len(found.files),
        (*found.notices, *notices, *range_notices(images, source.label)),
    )


def list_classes(
    folder: Path,
    classes: Sequence[str] | None = None,
    class_order: Sequence[str] | None = None,
) -> ClassFolders:
    """Find the image files below a folder, and the class of each.

    Files and folders whose names begin with a dot are left out, and so are files without the ending
    of an image.

    Args:
        classes: all classes in the order of the network's outputs; some may have no folder.
        class_order: the folders, each once, in the order of the network's outputs.

    Raises:
        InputError: the folder is missing or has another layout, or a class has no image.
    """
    may_be_empty = classes is not None or class_order is not None
    names = _class_folders(folder)
    ordered, notices = folder_order(names, folder.name)
    if class_order is not None:
        outputs = outputs_of(ordered, class_order, str(folder))
        if len(outputs) != len(class_order):
            absent = [name for place, name in enumerate(class_order) if place not in outputs]
            raise InputError(
                f"{folder}: expected a folder for each class of `class_order`, got none for "
                f"{listed(absent)}; where the data lack classes, name all by `classes` instead"
            )
        classes, notices = class_order, ()
    elif classes is not None:
        outputs, notices = outputs_of(ordered, classes, str(folder)), ()
    else:
        classes, outputs = ordered, list(range(len(ordered)))
    files: list[Path] = []
    labels: list[int] = []
    left_out: Counter[str] = Counter()
    repeats = 0
    for label, name in sorted(zip(outputs, ordered, strict=True)):
        places, repeated = _places_below(folder / name)
        images, others = _images_in(places)
        left_out.update(others)
        repeats += repeated
        if not images and not may_be_empty:
            raise InputError(
                f"{folder / name}: expected at least one image ({', '.join(EXTENSIONS)}), got "
                "none; remove the folder, or name all classes by `classes` in the suite"
            )
        files += images
        labels += [label] * len(images)
    if not files:
        raise InputError(f"{folder}: expected at least one image, got none")
    return ClassFolders(
        tuple(files),
        tuple(labels),
        tuple(classes),
        (*notices, *_left_out(folder, left_out, repeats)),
    )


def _class_folders(folder: Path) -> list[str]:
    expected = f"{folder}: expected a folder with one subfolder of images for each class"
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise InputError(f"{expected}; {error.strerror}") from error
    names = [
        path.name
        for path in entries
        if path.is_dir() and not path.name.startswith(".") and path.name not in NO_CLASSES
    ]
    if not names:
        loose = sum(_is_image(path.name) for path in entries)
        raise InputError(f"{expected}, got no subfolder and {loose:,} images")
    if {name.lower() for name in names} <= PARTS and not any(
        _is_image(path.name) for name in names for path in (folder / name).iterdir()
    ):
        raise InputError(
            f"{expected}, got the parts of a data set: {listed(names)}; name one, such as "
            f"folder: {folder.name}/{names[0]}"
        )
    return names


def _places_below(folder: Path) -> tuple[list[tuple[str, list[str]]], int]:
    """Return the folders of a class with the names of their files, each once.

    Returns:
        the folders by path, and how many were left out: links to folders that are there already, or
        that contain the class.
    """
    own = Path(os.path.realpath(folder))
    seen = {str(own), *(str(parent) for parent in own.parents)}
    places: list[tuple[str, list[str]]] = []
    repeated = 0
    for place, below, names in os.walk(folder, followlinks=True):
        places.append((place, names))
        new = []
        for name in sorted(below):
            target = os.path.realpath(os.path.join(place, name))
            if target not in seen:
                seen.add(target)
                new.append(name)
        repeated += len(below) - len(new)
        below[:] = new  # what `os.walk` goes on with
    return sorted(places), repeated


def _images_in(places: Sequence[tuple[str, list[str]]]) -> tuple[list[Path], Counter[str]]:
    """Return the image files in folders, and the endings of other files."""
    images: list[Path] = []
    others: Counter[str] = Counter()
    for place, names in places:
        for name in sorted(names):
            if name.startswith(".") or name.lower() in LITTER:
                continue
            if _is_image(name):
                images.append(Path(place) / name)
            else:
                others[Path(name).suffix.lower() or name] += 1
    return images, others


def _is_image(name: str) -> bool:
    return name.lower().endswith(EXTENSIONS) and not name.startswith(".")


def _left_out(folder: Path, endings: Counter[str], repeats: int) -> tuple[str, ...]:
    loose = sum(_is_image(path.name) for path in folder.iterdir())
    notices = []
    if endings:
        kinds = ", ".join(f"{ending} ({count:,})" for ending, count in endings.most_common(4))
        notices.append(f"{folder.name}: left out files without the ending of an image: {kinds}")
    if loose:
        notices.append(f"{folder.name}: left out {loose:,} images that are in no class folder")
    if repeats:
        notices.append(f"{folder.name}: left out folders that are links to others: {repeats:,}")
    return tuple(notices)
