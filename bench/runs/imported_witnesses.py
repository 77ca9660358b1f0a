"""Adversarial images that others found: checked like our own, kept as a run of its own.

RobustBench's external evaluations come as a tensor of the test images, perturbed. An image counts
if it lies in the eps-ball and in [0, 1], the candidate is right on the clean image and errs on this
one. The run adds to the best-known robust accuracy (`bench.store.best_known`); no other run
changes.
"""

from __future__ import annotations

import hashlib
import pickle
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bench.attacks import inside
from bench.attacks.distances import norms
from bench.candidates import Candidate
from bench.data import Dataset
from bench.engines import Task
from bench.engines.prediction import clean_results, confirm
from bench.errors import InputError
from bench.runs.evaluation import Evaluation
from bench.runs.imported import keep
from bench.runs.manifest import make_manifest
from bench.runs.session import RunResult
from bench.runs.settings import Settings
from bench.store import Store
from bench.store.manifest import Selection
from bench.store.records import AttackBlock, Attempts, Witnesses
from bench.store.summary import Flag
from bench.store.tables import Tables

ATTACK = "imported"
IMAGE_KEYS = ("images", "x_adv", "adversarial", "adv_complete")


class ImportedWitnesses(Evaluation):
    """Adversarial images of others, tried once each: records like those of an evaluation."""

    name = "imported-witnesses"
    is_ranked = False
    is_imported = True


@dataclass(frozen=True)
class ImportedImages:
    """A file with adversarial images.

    Attributes:
        path: where it was read from.
        sha256: digest of the file.
        images: (n, C, H, W) float32.
        index: (n,) places in the data set, ascending; None: the first n.
    """

    path: Path
    sha256: str
    images: Tensor
    index: Tensor | None


def read_images(path: Path) -> ImportedImages:
    """Read adversarial images from a `.pt` or `.npz` file.

    Either one array of images, or several by name: the images as `images`, and where they are not
    the first of the data set their places as `index`. Images of 8 bits are divided by 255.

    Raises:
        InputError: a file that cannot be read, that needs code to be run, or that holds no images.
    """
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    arrays = _arrays(path)
    images = next((arrays[key] for key in IMAGE_KEYS if key in arrays), None)
    if images is None and len(arrays) == 1:
        images = next(iter(arrays.values()))
    if images is None or images.dim() != 4:
        came = ", ".join(f"{key} {tuple(value.shape)}" for key, value in arrays.items())
        raise InputError(
            f"{path}: expected `images` of shape (n, C, H, W), got {came or 'no arrays'}"
        )
    images = images.float() / 255 if images.dtype == torch.uint8 else images.float()
    index = arrays.get("index")
    if index is None:
        return ImportedImages(path, digest, images, None)
    if index.shape != images.shape[:1] or index.is_floating_point():
        raise InputError(
            f"{path}: expected `index` of {len(images)} whole numbers, one an image, got "
            f"{index.dtype} of shape {tuple(index.shape)}"
        )
    index, order = index.long().sort()
    if bool((index.diff() == 0).any()):
        raise InputError(f"{path}: expected each sample once in `index`, got some twice")
    return ImportedImages(path, digest, images[order], index)


def _arrays(path: Path) -> dict[str, Tensor]:
    """Tensors by name; a lone tensor is called `images`."""
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                return {key: torch.from_numpy(archive[key]) for key in archive.files}
        if path.suffix == ".pt":
            content = torch.load(path, map_location="cpu", weights_only=True)
            items = content if isinstance(content, Mapping) else {"images": content}
            return {str(key): value for key, value in items.items() if isinstance(value, Tensor)}
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path}: expected tensors and nothing else, got a file that runs code when it is "
            "loaded; save the images alone"
        ) from error
    except Exception as error:  # zipfile, numpy and torch raise many kinds for a damaged file
        reason = " ".join(str(error).split())[:160]
        raise InputError(f"{path}: damaged or not {path.suffix}: {reason}") from error
    raise InputError(f"{path}: expected a .pt or .npz file, got {path.suffix or 'no suffix'!r}")


def import_witnesses(
    imported: ImportedImages,
    source: str,
    candidate: Candidate,
    dataset: Dataset,
    settings: Settings,
    store: Store,
) -> RunResult:
    """Check images and keep those that break their samples.

    Args:
        source: who found them, and how.
        dataset: all samples that the suite's protocol takes.
        settings: suite, protocol, radius, batch size and device.

    Returns:
        the run; reused if the same file was imported before.

    Raises:
        InputError: images of another shape, for samples that there are not, or outside the ball.
    """
    if not source.strip():
        raise InputError("--source: expected who found the images and how, got nothing")
    index = imported.index if imported.index is not None else torch.arange(len(imported.images))
    _check_place(imported, index, dataset)
    samples = dataset.take(index)
    settings = settings.of_candidate(candidate)
    kind = ImportedWitnesses()
    engine = kind.engine(settings)
    task = kind.task(candidate, samples, settings, engine)
    _check_ball(imported, samples, task)
    manifest = make_manifest(candidate, samples, settings, kind, engine, task)
    parameters = {
        "source": source.strip(),
        "file": imported.path.name,
        "sha256": imported.sha256,
    }
    manifest = manifest.model_copy(
        update={
            "attacks": [{"name": ATTACK, "parameters": parameters}],
            "engine": "import",
            "engine_settings": {},
            "precision": "float32",
            "selection": _selection(imported, samples, dataset),
        }
    )

    def tried() -> tuple[Tables, list[Flag]]:
        tables = kind.join(_blocks(imported.images, task))
        raised = kind.closing_flags(candidate, samples, manifest, tables, store, settings.device)
        return kind.measured(task, tables), raised

    return keep(kind, manifest, samples, store, tried)


def _selection(imported: ImportedImages, samples: Dataset, dataset: Dataset) -> Selection:
    n = len(samples)
    kind = "first" if imported.index is None else "listed"
    return Selection.model_validate({"kind": "all" if n == len(dataset) else kind, "n": n})


def _check_place(imported: ImportedImages, index: Tensor, dataset: Dataset) -> None:
    shape, expected = tuple(imported.images.shape[1:]), tuple(dataset.images.shape[1:])
    if shape != expected:
        raise InputError(
            f"{imported.path}: expected images of shape {expected}, as in {dataset.name}, got "
            f"{shape}"
        )
    if not len(index):
        raise InputError(f"{imported.path}: expected at least one image, got none")
    if int(index.min()) < 0 or int(index.max()) >= len(dataset):
        raise InputError(
            f"{imported.path}: expected places in [0, {len(dataset) - 1}] of {dataset.name}, got "
            f"[{int(index.min())}, {int(index.max())}]"
        )


def _check_ball(imported: ImportedImages, samples: Dataset, task: Task) -> None:
    threat = task.threat_model
    good = inside(imported.images, samples.images, threat.norm, threat.eps)
    if bool(good.all()):
        return
    row = int((~good).nonzero()[0])
    image = imported.images[row]
    distance = norms((image - samples.images[row]).double()[None], threat.norm)
    raise InputError(
        f"{imported.path}: expected images in [0, 1] within {threat.norm} {threat.eps:.8g} of "
        f"{samples.name}'s, got {int((~good).sum())} of {len(good)} that are not; the first is "
        f"sample {int(samples.indices[row])}, at distance {float(distance):.8g} with values in "
        f"[{float(image.min()):.8g}, {float(image.max()):.8g}]. Leave them out (name the others "
        "by `index`), or check the data set's order and the radius."
    )


def _blocks(images: Tensor, task: Task) -> list[AttackBlock]:
    """Clean predictions, and what the images do, batch by batch."""
    blocks = []
    rows = torch.arange(len(images))
    for number, part in enumerate(torch.split(rows, task.batch_size)):
        start = time.perf_counter()
        clean = clean_results(task, part)
        prediction = confirm(task, images[part], task.labels[part]).cpu().numpy()
        right = clean.prediction == clean.label
        broken = right & (prediction != clean.label)
        n = int(right.sum())
        seconds = time.perf_counter() - start
        attempts = Attempts(
            index=clean.index[right],
            attack=np.full(n, ATTACK),
            outcome=np.where(broken[right], "broken", "survived"),
            iteration=np.full(n, -1),
            forward_passes=np.ones(n),
            backward_passes=np.zeros(n),
            seconds=np.full(n, seconds / max(n, 1)),
        )
        witnesses = Witnesses(
            index=clean.index[broken],
            attack=np.full(int(broken.sum()), ATTACK),
            prediction=prediction[broken],
            images=images[part][torch.from_numpy(broken)].numpy(),
        )
        blocks.append(
            AttackBlock(
                key=f"{number:05d}",
                seconds=seconds,
                clean=clean,
                attempts=attempts,
                witnesses=witnesses if broken.any() else None,
            )
        )
    return blocks
