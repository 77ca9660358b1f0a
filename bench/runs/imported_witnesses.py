"""Adversarial images that others found, checked like those of attacks and kept as a run.

RobustBench's external evaluations come as a tensor of perturbed test images. An image counts if it
lies in the eps-ball and in [0, 1], and if the candidate classifies the clean image correctly and
this one wrongly. A sample on which the candidate raises an error is recorded as failed. The run
adds to the best-known robust accuracy (`bench.store.best_known`); no other run changes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bench.attacks import inside
from bench.attacks.distances import norms
from bench.candidates import Candidate
from bench.candidates.tensor_files import read_tensor_file
from bench.candidates.weights import file_sha256
from bench.data import Dataset
from bench.decision import NO_CLASS
from bench.engines import Task
from bench.engines.answering import in_parts
from bench.engines.attack_works import CLEAN_ATTEMPT
from bench.engines.prediction import confirm, decide
from bench.errors import FOREIGN_ERRORS, EvaluationError, InputError, raised
from bench.executors.worker import is_at_fault
from bench.kinds.attacked import ImportedWitnessesRecords
from bench.memory.out_of_memory import ImagesAtOnce
from bench.precision import tensor_cores
from bench.runs.evaluation import AttackingKind
from bench.runs.imported import keep
from bench.runs.manifest import make_manifest
from bench.runs.session import RunResult
from bench.runs.settings import Settings
from bench.store import Store
from bench.store.manifest import Selection
from bench.store.records import FAILED, AttackBlock, Attempts, CleanResults, Witnesses
from bench.store.summary import Flag
from bench.store.tables import Tables

ATTACK = "imported"
ADVERSARIAL_KEYS = (
    "adv_complete",  # AutoAttack's example
    "adv_inputs",  # torchattacks
    "x_adv",
    "adv_x",
    "adv",
    "advs",
    "adv_images",
    "adv_examples",
    "adversarial",
    "adversarial_images",
    "adversarial_examples",
)
"""Names of adversarial images in archives that may also hold clean ones."""
IMAGE_KEYS = ("images", "x")
"""Names of the images in archives where no name says that they are adversarial."""
INDEX_KEYS = ("index", "indices", "idx")
LABEL_KEYS = ("labels",)


class ImportedWitnesses(ImportedWitnessesRecords, AttackingKind):
    """Adversarial images of others, tried once each: records like those of an evaluation."""


@dataclass(frozen=True)
class ImportedImages:
    """A file with adversarial images.

    Attributes:
        path: path of the file.
        sha256: digest of the file.
        images: (n, C, H, W) or (n, H, W, C) float32; the data set's shape decides which.
        index: (n,) places in the data set, ascending; None: the images are the first n.
        labels: (n,) labels of the file; None: it has none.
    """

    path: Path
    sha256: str
    images: Tensor
    index: Tensor | None
    labels: Tensor | None = None


def read_images(path: Path) -> ImportedImages:
    """Read adversarial images from a file of tensors or arrays; its content tells the format.

    The file holds one array of images, alone or with arrays of fewer dimensions, or several named
    arrays. Then the images have one of the usual names. Their places in the data set are named
    `index`, unless they are its first images. Images of integers from 0 to 255 are divided by 255.

    Raises:
        InputError: the file cannot be read, runs code, holds no images, or holds several arrays of
            images of which none has a usual name.
    """
    arrays = _arrays(path)
    images = _as_floats(path, arrays.pop(_image_key(path, arrays)))
    labels = next((arrays[key] for key in LABEL_KEYS if key in arrays), None)
    if labels is not None and labels.shape != images.shape[:1]:
        labels = None
    digest = file_sha256(path)
    index = next((arrays[key] for key in INDEX_KEYS if key in arrays), None)
    if index is None:
        return ImportedImages(path, digest, images, None, labels)
    numbers = index.dtype in {torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64}
    if index.shape != images.shape[:1] or not numbers:
        raise InputError(
            f"{path}: expected `index` of {len(images)} integers, one for each image, got "
            f"{index.dtype} of shape {tuple(index.shape)}"
        )
    index, order = index.long().sort()
    if bool((index.diff() == 0).any()):
        raise InputError(f"{path}: expected each sample once in `index`, got repeated ones")
    return ImportedImages(
        path, digest, images[order], index, None if labels is None else labels[order]
    )


def _arrays(path: Path) -> dict[str, Tensor]:
    """Return tensors by name; an unnamed tensor, or those of a list or tuple, by number."""
    content = read_tensor_file(path, "images")
    if isinstance(content, Tensor):
        content = {"images": content}
    elif isinstance(content, list | tuple):
        content = {str(number): value for number, value in enumerate(content)}
    elif not isinstance(content, dict):
        content = {}
    found = {}
    for key, value in dict.items(content):
        if isinstance(value, Tensor):
            if value.layout != torch.strided or value.is_quantized or value.is_meta:
                raise InputError(
                    f"{path}: expected dense tensors, got a sparse, quantized or meta tensor "
                    f"as {key!r}"
                )
            found[str(key)] = value.detach()
    return found


def _image_key(path: Path, arrays: Mapping[str, Tensor]) -> str:
    """Return the name of the adversarial images: the only array, or the one with a usual name."""
    images = [key for key, value in arrays.items() if value.dim() == 4]
    named = [key for key in images if key in ADVERSARIAL_KEYS]
    for chosen in (images, named, [key for key in images if key in IMAGE_KEYS and not named]):
        if len(chosen) == 1:
            return chosen[0]
    came = ", ".join(f"{key} {tuple(value.shape)}" for key, value in arrays.items())
    if images:
        raise InputError(
            f"{path}: expected one array of images, or adversarial ones called x_adv, got {came}: "
            "which are the adversarial ones? Save them alone"
        )
    raise InputError(f"{path}: expected `images` of shape (n, C, H, W), got {came or 'no arrays'}")


def _as_floats(path: Path, images: Tensor) -> Tensor:
    """Return images in float32; integers are read as 8-bit values.

    Raises:
        InputError: integers outside 0..255, integers of 0 and 1 only, or another type.
    """
    if images.is_floating_point():
        return images.float()
    if images.is_complex() or images.dtype == torch.bool:
        raise InputError(f"{path}: expected numbers as pixels, got {images.dtype}")
    low, high = (int(images.min()), int(images.max())) if images.numel() else (0, 255)
    if low < 0 or not 1 < high <= 255:
        raise InputError(
            f"{path}: expected integers from 0 to 255 as pixels, got {images.dtype} from "
            f"{low} to {high}; save floating-point numbers in [0, 1]"
        )
    return images.float() / 255


@tensor_cores(False)
def import_witnesses(
    imported: ImportedImages,
    source: str,
    candidate: Candidate,
    dataset: Dataset,
    settings: Settings,
    store: Store,
    notice: Callable[[str], None] = lambda _: None,
) -> RunResult:
    """Check images and keep those that break their samples.

    Args:
        source: who found them, and how.
        dataset: all samples that the suite's protocol takes.
        settings: suite, protocol, radius, batch size and device.
        notice: called with messages for the user that are no errors.

    Returns:
        the run; reused if the same file was imported before.

    Raises:
        InputError: images have another shape, belong to no sample, or lie outside the ball.
        EvaluationError: the candidate raises errors on so many samples that it is at fault itself;
            no run is begun.
    """
    if not source.strip():
        raise InputError("--source: expected who found the images and how, got nothing")
    index = imported.index if imported.index is not None else torch.arange(len(imported.images))
    imported = _channels_first(imported, dataset)
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
        tables = kind.join([_tried(imported.images, task)])
        found = kind.closing_flags(candidate, samples, manifest, tables, store, settings.device)
        return kind.measured(task, tables), found

    # Before the run begins, so that a candidate that fails leaves nothing behind.
    result = None if store.folder(manifest).is_complete else tried()
    return keep(kind, manifest, samples, store, lambda: result or tried(), notice)


def _selection(imported: ImportedImages, samples: Dataset, dataset: Dataset) -> Selection:
    n = len(samples)
    kind = "first" if imported.index is None else "listed"
    return Selection.model_validate({"kind": "all" if n == len(dataset) else kind, "n": n})


def _channels_first(imported: ImportedImages, dataset: Dataset) -> ImportedImages:
    """Return images as (n, C, H, W) where the data set says that they are (n, H, W, C)."""
    channels, height, width = dataset.images.shape[1:]
    shape = tuple(imported.images.shape[1:])
    if shape != (channels, height, width) and shape == (height, width, channels):
        return replace(imported, images=imported.images.permute(0, 3, 1, 2).contiguous())
    return imported


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
        f"[{float(image.min()):.8g}, {float(image.max()):.8g}]. {_advice(imported, samples)}"
    )


def _advice(imported: ImportedImages, samples: Dataset) -> str:
    """Return advice about images that are far from the data set's."""
    labels, highest = imported.labels, float(imported.images.max())
    if 2 < highest <= 255:
        return "Are the pixels from 0 to 255? Divide them by 255."
    if labels is not None and not torch.equal(labels.long(), samples.labels.cpu()):
        return (
            "The file's labels are not the data set's, so its images are in another order: attack "
            "without shuffling, or name each one's place by `index`."
        )
    return (
        "Leave them out (name the others by `index`), or check the data set's order and the radius."
    )


def _tried(images: Tensor, task: Task) -> AttackBlock:
    """Return the clean predictions and the images' outcomes.

    A sample fails if the candidate raises an error on it, or is right on it and raises one on its
    image.

    Raises:
        EvaluationError: the candidate raises errors on so many that it is at fault itself.
    """
    start = time.perf_counter()
    index, label = task.indices.numpy(), task.labels.numpy()
    clean, unanswered = _classes(task, lambda part: decide(task, task.images[part]))
    prediction, failed = _classes(task, lambda part: confirm(task, images[part], task.labels[part]))
    right = clean == label
    broken = right & ~failed & (prediction != label)
    tried = right | unanswered
    outcome = np.where(broken, "broken", "survived")
    outcome[unanswered | failed] = FAILED
    n, seconds = int(tried.sum()), time.perf_counter() - start
    attempts = Attempts(
        index=index[tried],
        attack=np.where(unanswered, CLEAN_ATTEMPT, ATTACK)[tried],
        outcome=outcome[tried],
        iteration=np.full(n, -1),
        forward_passes=right[tried].astype(np.float64),
        backward_passes=np.zeros(n),
        seconds=np.full(n, seconds / max(n, 1)),
    )
    witnesses = Witnesses(
        index=index[broken],
        attack=np.full(int(broken.sum()), ATTACK),
        prediction=prediction[broken],
        images=images[torch.from_numpy(broken)].numpy(),
    )
    return AttackBlock(
        key=ATTACK,
        seconds=seconds,
        clean=CleanResults(index=index, label=label, prediction=clean),
        attempts=attempts,
        witnesses=witnesses if broken.any() else None,
    )


def _classes(
    task: Task, ask: Callable[[Tensor], Tensor]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Return the classes (n,) of the task's rows, and where asking raised an error (n,).

    Args:
        ask: given some rows (m,), returns their classes (m,).

    Raises:
        EvaluationError: the candidate raises errors on so many that it is at fault itself.
    """
    failed = np.zeros(len(task.labels), dtype=bool)

    def without(row: Tensor) -> Tensor:
        failed[row.numpy()] = True
        if is_at_fault(int(failed.sum()), len(failed)):
            try:
                return ask(row).cpu()  # raises the error again
            except FOREIGN_ERRORS as error:
                raise EvaluationError(f"failed: {raised(error)}") from error
        return torch.full((len(row),), NO_CLASS)

    rows = torch.arange(len(failed))
    at_once = ImagesAtOnce(task.batch_size)
    found = in_parts(at_once, rows, lambda part: ask(part).cpu(), without)
    return torch.cat(found).numpy(), failed
