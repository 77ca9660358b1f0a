"""What others bring: archives of adversarial images, and certification logs; whole and damaged."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tests.fuzz.case import Draws, Outcome
from tests.fuzz.problem import Array, Images, Labels, Problem

Index = npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Images:
    """How images (n, C, H, W) and their places (n,) become a file."""

    content: Callable[[Images, Index], bytes]
    suffix: str = ".npz"
    outcome: Outcome = "accept"
    first_only: bool = False
    """Whether the file has no places: the images are the first n."""


def _npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def _pt(value: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def _tensors(images: Images, index: Index) -> dict[str, torch.Tensor]:
    return {"images": torch.from_numpy(images), "index": torch.from_numpy(index)}


def _spoilt(change: Callable[[Images], Images]) -> Callable[[Images, Index], bytes]:
    return lambda images, index: _npz(images=change(images.copy()), index=index)


def _set(value: float) -> Callable[[Images], Images]:
    def change(images: Images) -> Images:
        images[0, 0, 0, 0] = value
        return images

    return change


IMAGES: Mapping[str, _Images] = MappingProxyType(
    {
        "npz": _Images(lambda images, index: _npz(images=images, index=index)),
        "pt": _Images(lambda images, index: _pt(_tensors(images, index)), ".pt"),
        "pth": _Images(lambda images, index: _pt(_tensors(images, index)), ".pth"),
        "legacy pt": _Images(
            lambda images, index: _pt(
                _tensors(images, index), _use_new_zipfile_serialization=False
            ),
            ".pt",
        ),
        "a lone tensor": _Images(
            lambda images, index: _pt(torch.from_numpy(images)), ".pt", first_only=True
        ),
        "adv_complete": _Images(
            lambda images, index: _pt({"adv_complete": torch.from_numpy(images)}),
            ".pth",
            first_only=True,
        ),
        "adv_inputs": _Images(
            lambda images, index: _pt(
                {"adv_inputs": torch.from_numpy(images), "labels": torch.zeros(len(images))}
            ),
            ".pt",
            "either",
            first_only=True,
        ),
        "a tuple": _Images(
            lambda images, index: _pt((torch.from_numpy(images), torch.zeros(len(images)))),
            ".pt",
            "either",
            first_only=True,
        ),
        "shuffled": _Images(lambda images, index: _npz(images=images[::-1], index=index[::-1])),
        "float64": _Images(
            lambda images, index: _npz(images=images.astype(np.float64), index=index)
        ),
        "big-endian": _Images(
            lambda images, index: _npz(images=images.astype(">f4"), index=index.astype(">i8")),
            outcome="either",
        ),
        "float16": _Images(
            lambda images, index: _npz(images=images.astype(np.float16), index=index),
            outcome="either",
        ),
        "int32 places": _Images(
            lambda images, index: _npz(images=images, index=index.astype(np.int32))
        ),
        "channels last": _Images(
            lambda images, index: _npz(images=images.transpose(0, 2, 3, 1), index=index),
            outcome="either",
        ),
        "another ending": _Images(
            lambda images, index: _npz(images=images, index=index), ".zip", "either"
        ),
        "no index": _Images(lambda images, index: _npz(images=images), first_only=True),
        "an .npy": _Images(lambda images, index: _npy(images), ".npy", "either", first_only=True),
        "outside the ball": _Images(
            _spoilt(lambda images: np.clip(images + 0.9, 0, 1) - np.clip(images - 0.9, 0, 1) * 0.9),
            outcome="refuse",
        ),
        "above 1": _Images(_spoilt(_set(1.001)), outcome="refuse"),
        "below 0": _Images(_spoilt(_set(-0.001)), outcome="refuse"),
        "not a number": _Images(_spoilt(_set(np.nan)), outcome="refuse"),
        "infinite": _Images(_spoilt(_set(np.inf)), outcome="refuse"),
        "pixels to 255": _Images(_spoilt(lambda images: images * 255), outcome="refuse"),
        "another size": _Images(
            lambda images, index: _npz(images=images[:, :, :-1], index=index), outcome="refuse"
        ),
        "three dimensions": _Images(
            lambda images, index: _npz(images=images[:, 0], index=index), outcome="refuse"
        ),
        "no images": _Images(
            lambda images, index: _npz(images=images[:0], index=index[:0]), outcome="refuse"
        ),
        "a place twice": _Images(
            lambda images, index: _npz(images=images[[0, 0]], index=np.array([index[0], index[0]])),
            outcome="refuse",
        ),
        "a place too far": _Images(
            lambda images, index: _npz(images=images, index=index + 1000), outcome="refuse"
        ),
        "a negative place": _Images(
            lambda images, index: _npz(images=images, index=index - 1000), outcome="refuse"
        ),
        "a place too few": _Images(
            lambda images, index: _npz(images=images, index=index[:-1]), outcome="refuse"
        ),
        "places of floats": _Images(
            lambda images, index: _npz(images=images, index=index + 0.5), outcome="refuse"
        ),
        "bool places": _Images(
            lambda images, index: _npz(images=images, index=np.ones(len(images), bool)),
            outcome="refuse",
        ),
        "text places": _Images(
            lambda images, index: _npz(images=images, index=index.astype(str)), outcome="refuse"
        ),
        "complex": _Images(
            lambda images, index: _npz(images=images.astype(np.complex64), index=index),
            outcome="refuse",
        ),
        "text": _Images(
            lambda images, index: _npz(images=images.astype(str), index=index), outcome="refuse"
        ),
        "objects": _Images(
            lambda images, index: _npz(images=images.astype(object), index=index),
            outcome="refuse",
        ),
        "nothing": _Images(lambda images, index: _npz(), outcome="refuse"),
        "two unknown arrays": _Images(
            lambda images, index: _npz(a=images, b=images), outcome="refuse"
        ),
        "truncated": _Images(
            lambda images, index: _npz(images=images, index=index)[:-40], outcome="refuse"
        ),
        "truncated pt": _Images(
            lambda images, index: _pt(_tensors(images, index))[:-40], ".pt", outcome="refuse"
        ),
        "empty": _Images(lambda images, index: b"", outcome="refuse"),
        "empty pt": _Images(lambda images, index: b"", ".pt", outcome="refuse"),
        "a text file": _Images(lambda images, index: b"images\n", outcome="refuse"),
        "a text file, pt": _Images(lambda images, index: b"images\n", ".pt", outcome="refuse"),
        "a list in pt": _Images(
            lambda images, index: _pt([1, 2, "three"]), ".pt", outcome="refuse"
        ),
        "a number in pt": _Images(lambda images, index: _pt(3), ".pt", outcome="refuse"),
        "sparse": _Images(
            lambda images, index: _pt(
                {"images": torch.from_numpy(images).to_sparse(), "index": torch.from_numpy(index)}
            ),
            ".pt",
            outcome="either",
        ),
        "with a gradient": _Images(
            lambda images, index: _pt(
                {
                    "images": torch.from_numpy(images).requires_grad_(),
                    "index": torch.from_numpy(index),
                }
            ),
            ".pt",
        ),
        "code": _Images(lambda images, index: _pt(_Runs()), ".pt", outcome="refuse"),
    }
)


class _Runs:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("code from an archive ran",)


def _npy(images: Images) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, images)
    return buffer.getvalue()


@dataclass(frozen=True)
class ImageFile:
    """An archive of adversarial images as it was written.

    Attributes:
        index: (n,) places of its images.
        images: (n, C, H, W).
    """

    path: Path
    outcome: Outcome
    index: Index
    images: Images


def write_images(folder: Path, name: str, problem: Problem, draws: Draws) -> ImageFile:
    """Write images at random places of the balls."""
    kind = IMAGES[name]
    n = draws.choices.randint(2, len(problem.labels))
    index = (
        np.arange(n)
        if kind.first_only
        else np.sort(draws.numbers.choice(len(problem.labels), n, replace=False))
    )
    clean = problem.images[index].astype(np.float64)
    step = draws.numbers.choice([-1.0, 0.0, 1.0], clean.shape) * problem.eps * 0.999
    if problem.norm == "L2":
        step /= np.sqrt(clean[0].size)
    images = np.clip(clean + step, 0, 1).astype(np.float32)
    path = folder / f"found{kind.suffix}"
    path.write_bytes(kind.content(images, index))
    if name == "float16":
        images = images.astype(np.float16).astype(np.float32)
    return ImageFile(path, kind.outcome, index, images)


@dataclass(frozen=True)
class LogFile:
    """A certification log as it was written.

    Attributes:
        certified: the share of all rows that are right with at least the threat model's radius.
        clean: the share that is right.
        average_radius: over all rows, radius if right and else 0.
    """

    path: Path
    outcome: Outcome
    clean: float
    certified: float
    average_radius: float


_COLUMNS = "idx\tlabel\tpredict\tradius\tcorrect\ttime"

LOGS: Mapping[str, tuple[Callable[[str], bytes], Outcome]] = MappingProxyType(
    {
        "plain": (str.encode, "accept"),
        "gzip": (lambda text: gzip.compress(text.encode()), "accept"),
        "lines of Windows": (lambda text: text.replace("\n", "\r\n").encode(), "accept"),
        "byte order mark": (lambda text: b"\xef\xbb\xbf" + text.encode(), "accept"),
        "blank lines": (lambda text: text.replace("\n", "\n\n").encode(), "accept"),
        "no last line end": (lambda text: text.rstrip("\n").encode(), "accept"),
        "UTF-16": (lambda text: text.encode("utf-16"), "either"),
        "commas": (lambda text: text.replace("\t", ",").encode(), "either"),
        "spaces": (lambda text: text.replace("\t", "  ").encode(), "either"),
        "no header": (lambda text: text.split("\n", 1)[1].encode(), "refuse"),
        "header alone": (lambda text: (text.split("\n")[0] + "\n").encode(), "refuse"),
        "empty": (lambda text: b"", "refuse"),
        "a column less": (lambda text: text.replace("radius", "r").encode(), "refuse"),
        "truncated gzip": (lambda text: gzip.compress(text.encode())[:-12], "refuse"),
        "binary": (lambda text: bytes(range(256)), "refuse"),
        "null bytes": (lambda text: text.replace("\t", "\0").encode(), "refuse"),
        "a quote": (lambda text: text.replace("\n0\t", '\n"0\t').encode(), "refuse"),
        "a row twice": (
            lambda text: (text + text.strip().split("\n")[-1] + "\n").encode(),
            "refuse",
        ),
        "a row cut short": (lambda text: (text + "0\t1\n").encode(), "refuse"),
        "columns twice": (
            lambda text: "\n".join(f"{line}\t{line}" for line in text.strip().split("\n")).encode(),
            "either",
        ),
        "a place too far": (
            lambda text: (text + "999\t0\t0\t0.1\t1\t0:00:01\n").encode(),
            "refuse",
        ),
        "a place that is no number": (
            lambda text: (text + "x\t0\t0\t0.1\t1\t0:00:01\n").encode(),
            "refuse",
        ),
    }
)

ROWS: Mapping[str, Callable[[dict[str, Any]], dict[str, Any]]] = MappingProxyType(
    {
        "a radius that is no number": lambda row: row | {"radius": "nan"},
        "an infinite radius": lambda row: row | {"radius": "inf"},
        "a negative radius": lambda row: row | {"radius": "-0.1"},
        "a radius beyond proof": lambda row: row | {"radius": "50"},
        "an empty radius": lambda row: row | {"radius": ""},
        "another label": lambda row: (
            row
            | {
                "label": 1 - int(row["label"]),
                "correct": int(1 - int(row["label"]) == row["predict"]),
            }
        ),
        "a class too far": lambda row: row | {"predict": 77, "correct": 0},
        "correct that is wrong": lambda row: row | {"correct": 1 - int(row["correct"])},
        "correct of 2": lambda row: row | {"correct": 2},
        "abstained with a radius": lambda row: row | {"predict": -1, "radius": "0.2", "correct": 0},
        "float label": lambda row: row | {"label": f"{row['label']}.5"},
    }
)
"""One row changed into something that cannot be."""


def write_log(
    folder: Path, name: str, labels: Labels, classes: int, sigma: float, eps: float, draws: Draws
) -> LogFile:
    """Write a log of some of the samples in the format of Cohen et al.'s scripts."""
    every = draws.one_of((1, 1, 2, 3))
    index = np.arange(0, len(labels), every)
    rows: list[dict[str, Any]] = []
    for place in index.tolist():
        predicted = (
            draws.choices.randint(-1, classes - 1) if draws.chance(0.5) else int(labels[place])
        )
        radius = 0.0 if predicted < 0 else round(draws.choices.uniform(0, 3.5 * sigma), 3)
        right = int(predicted == labels[place])
        rows.append(
            {"idx": place, "label": int(labels[place]), "predict": predicted, "radius": radius}
            | {"correct": right, "time": "0:00:01.234"}
        )
    right = np.array([row["correct"] for row in rows], bool)
    radii: Array = np.array([row["radius"] for row in rows], np.float64)
    change, outcome = LOGS.get(name, (str.encode, "refuse"))
    if name in ROWS:
        chosen = draws.choices.randrange(len(rows))
        rows[chosen] = ROWS[name](rows[chosen])
    if draws.chance(0.3):
        draws.choices.shuffle(rows)
    lines = [_COLUMNS, *("\t".join(str(value) for value in row.values()) for row in rows)]
    path = folder / draws.one_of(("log.tsv", "log.txt", "sigma_0.25"))
    path.write_bytes(change("\n".join(lines) + "\n"))
    return LogFile(
        path,
        outcome,
        clean=float(right.mean()),
        certified=float((right & (radii >= eps)).mean()),
        average_radius=float((radii * right).mean()),
    )
