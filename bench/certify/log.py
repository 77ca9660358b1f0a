"""Certification logs in the format of Cohen et al.'s scripts, which the field has kept.

Tab-separated text, perhaps packed by gzip: `idx`, `label`, `predict` (-1: abstained), `radius`,
`correct` (0 or 1), and others that are not read, such as `time`.
"""

from __future__ import annotations

import csv
import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from bench.certify.votes import ABSTAINED
from bench.errors import InputError
from bench.store.records import Certificates, IntArray

COLUMNS = ("idx", "label", "predict", "radius", "correct")
GZIP_MAGIC = b"\x1f\x8b"
MOST_SIGMAS = 6.0
"""The largest radius over sigma that makes sense: it needs some ten thousand million draws that all
agree; 100,000 prove 3.8."""


def read_certification_log(
    path: Path, labels: IntArray, classes: int, sigma: float
) -> Certificates:
    """Read and check a log.

    Args:
        labels: (N,) the data set's, all of them.
        classes: K.
        sigma: of the noise; > 0.

    Returns:
        the log's rows, sorted by index.

    Raises:
        InputError: the file cannot be read; or a column is missing, a value is none of its kind,
            an index comes twice, a label is not the data set's, or a radius is more than such noise
            can prove: with the line.
    """
    lines = _read_text(path).splitlines()
    rows = csv.reader(lines, delimiter="\t")
    header = next(rows, [])
    missing = [name for name in COLUMNS if name not in header]
    if missing:
        raise InputError(
            f"{path}, line 1: expected columns {', '.join(COLUMNS)}; "
            f"got {', '.join(header) or 'none'}: {', '.join(missing)} missing"
        )
    seen: dict[int, int] = {}
    found: list[tuple[int, int, int, float]] = []
    for line, cells in enumerate(rows, start=2):
        if not cells:
            continue
        where = f"{path}, line {line}"
        if len(cells) != len(header):
            raise InputError(f"{where}: expected {len(header)} columns, got {len(cells)}")
        row = _row(where, dict(zip(header, cells, strict=True)), labels, classes, sigma)
        if row[0] in seen:
            raise InputError(
                f"{where}: expected each idx once, got {row[0]} again after line {seen[row[0]]}"
            )
        seen[row[0]] = line
        found.append(row)
    if not found:
        raise InputError(f"{path}: expected rows below the header, got none")
    index, label, prediction, radius = zip(*sorted(found), strict=True)
    unknown = np.full(len(found), -1)
    return Certificates(
        index=np.array(index),
        label=np.array(label),
        prediction=np.array(prediction),
        radius=np.array(radius),
        certified_count=unknown,
        noise_samples=unknown,
    )


def _row(
    where: str, cells: dict[str, str], labels: IntArray, classes: int, sigma: float
) -> tuple[int, int, int, float]:
    """Index, label, prediction and radius of one line."""
    index = _integer(where, "idx", cells["idx"], 0, len(labels) - 1)
    label = _integer(where, "label", cells["label"], 0, classes - 1)
    prediction = _integer(where, "predict", cells["predict"], ABSTAINED, classes - 1)
    right = _integer(where, "correct", cells["correct"], 0, 1)
    if label != labels[index]:
        raise InputError(
            f"{where}: expected label {labels[index]}, the data set's at idx {index}; got {label}"
        )
    try:
        radius = float(cells["radius"])
    except ValueError:
        radius = math.nan
    if not 0 <= radius < math.inf:
        raise InputError(f"{where}: expected a radius >= 0, got {cells['radius']!r}")
    farthest = MOST_SIGMAS * sigma
    if radius > farthest:
        raise InputError(
            f"{where}: expected a radius of at most {farthest:g}, {MOST_SIGMAS:g} sigma, beyond "
            f"which no number of draws proves anything; got {radius:g}: is sigma {sigma:g} right?"
        )
    if prediction == ABSTAINED and radius != 0:
        raise InputError(f"{where}: expected radius 0 with predict -1 (abstained), got {radius}")
    if right != (prediction == label):
        raise InputError(
            f"{where}: expected correct {int(prediction == label)} for label {label} and predict "
            f"{prediction}, got {right}"
        )
    return index, label, prediction, radius


def _integer(where: str, name: str, text: str, low: int, high: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = None
    if value is None or not low <= value <= high:
        raise InputError(f"{where}: expected {name} from {low} to {high}, got {text!r}")
    return value


def _read_text(path: Path) -> str:
    try:
        content = path.read_bytes()
        if content.startswith(GZIP_MAGIC):
            content = gzip.decompress(content)
        return content.decode("utf-8")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as a certification log: {error}") from error
