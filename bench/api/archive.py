"""An evaluation as one file: the run's records and the samples that its witnesses belong to."""

from __future__ import annotations

import io
import json
import tempfile
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.errors import InputError
from bench.store import RunFolder, Store
from bench.store.files import UNREADABLE, write
from bench.store.run_folder import (
    ATTEMPTS,
    MANIFEST,
    SAMPLES,
    SMALLEST,
    SMALLEST_IMAGES,
    SUMMARY,
    WITNESSES,
)

if TYPE_CHECKING:
    from bench.api.evaluation import Evaluation
    from bench.data import Dataset

FORMAT = 1
RECORDS = (MANIFEST, SUMMARY, SAMPLES, ATTEMPTS, WITNESSES, SMALLEST, SMALLEST_IMAGES)
ABOUT, DATA = "evaluation.json", "data.npz"


@dataclass(frozen=True)
class Saved:
    """What an archive holds.

    Attributes:
        folder: the run's files, for as long as `held` lives.
        dataset: the samples of the run.
        command, notices: as of `Evaluation`.
        held: the temporary folder, a store of this run alone, which is removed with this object.
    """

    folder: RunFolder
    dataset: Dataset
    command: str
    notices: tuple[str, ...]
    held: Any


def save(evaluation: Evaluation, path: Path) -> Path:
    """Write an evaluation into one zip archive; returns its path.

    Raises:
        InputError: the file cannot be written, or the data are not here.
    """
    about = {"format": FORMAT, "command": evaluation.command, "notices": evaluation.notices}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(ABOUT, json.dumps(about))
        archive.writestr(DATA, _packed(evaluation.dataset()))
        for name in RECORDS:
            if (evaluation.path / name).is_file():
                archive.write(evaluation.path / name, name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, buffer.getvalue())
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from error
    return path


def load(path: Path) -> Saved:
    """Return what `save` wrote.

    Raises:
        InputError: there is no such file, or it is damaged or of another form.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    folder = tempfile.TemporaryDirectory(prefix="bench-evaluation-")
    unpacked = RunFolder(Path(folder.name) / ".unpacked")
    try:
        with zipfile.ZipFile(path) as archive:
            about = json.loads(archive.read(ABOUT))
            if about["format"] != FORMAT:
                raise InputError(f"{path}: expected format {FORMAT}, got {about['format']}")
            unpacked.path.mkdir()
            for name in set(RECORDS) & set(archive.namelist()):
                (unpacked.path / name).write_bytes(archive.read(name))
            dataset = _unpacked(archive.read(DATA))
        damaged = [each.name for each in unpacked.verify_tables()]
        manifest = unpacked.summary().manifest
        run = Store(Path(folder.name)).folder(manifest)
        run.path.parent.mkdir(parents=True)
        unpacked.path.rename(run.path)
        record = manifest.dataset
        dataset = replace(dataset, name=record.name, size=record.size)
        command, notices = str(about["command"]), tuple(map(str, about["notices"]))
    except (*UNREADABLE, TypeError) as error:
        raise InputError(f"{path}: damaged, or not what Evaluation.save writes: {error}") from error
    if damaged or dataset.sha256() != record.sha256:
        what = ", ".join(damaged) or DATA
        raise InputError(f"{path}: damaged: {what} is not what was saved")
    return Saved(run, dataset, command, notices, folder)


def _packed(dataset: Dataset) -> bytes:
    """Return images, labels, indices and classes as .npz; 8-bit images take a byte a value."""
    images = dataset.images.numpy()
    bytes_ = np.rint(images * 255).astype(np.uint8)
    exact = np.array_equal(_floats(bytes_), images)
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        images=bytes_ if exact else images,
        labels=dataset.labels.numpy(),
        indices=dataset.indices.numpy(),
        classes=np.array(dataset.classes, dtype=str),
    )
    return buffer.getvalue()


def _unpacked(content: bytes) -> Dataset:
    import torch

    from bench.data import Dataset

    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        images = arrays["images"]
        return Dataset(
            name="",
            images=torch.from_numpy(_floats(images) if images.dtype == np.uint8 else images),
            labels=torch.from_numpy(arrays["labels"]),
            indices=torch.from_numpy(arrays["indices"]),
            classes=tuple(arrays["classes"].tolist()),
            size=len(images),
        )


def _floats(
    images: np.ndarray[tuple[int, ...], np.dtype[np.uint8]],
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return images.astype(np.float32) / np.float32(255)
