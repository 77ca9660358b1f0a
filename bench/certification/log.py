"""Read certification logs in the format of Cohen et al.'s scripts, which the field has kept.

A log is tab-separated text, optionally compressed by gzip, with the columns `idx`, `label`,
`predict` (-1: abstained), `radius` and `correct` (0 or 1); other columns, such as `time`, are
ignored. The reader also accepts what editors and spreadsheets make of it: a byte order mark,
UTF-16, commas or semicolons between the columns, decimal commas, spaces, capitals, blank lines,
whole numbers written as 3.0.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import math
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bench.errors import InputError
from bench.store.records import ABSTAINED, Certificates, IntArray

COLUMNS = ("idx", "label", "predict", "radius", "correct")
GZIP_MAGIC = b"\x1f\x8b"
SEPARATORS = ("\t", ";", ",")
TRUTH = {"true": "1", "false": "0"}
BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
MOST_SIGMAS = 6.0
"""The largest plausible radius, in sigmas: it takes some ten billion draws that all agree; 100,000
draws prove 3.8."""


def read_certification_log(
    path: Path, labels: IntArray, classes: int, sigma: float
) -> Certificates:
    """Read and check a log.

    Args:
        path: the log.
        labels: (N,) all labels of the data set.
        classes: K.
        sigma: standard deviation of the noise, > 0.

    Returns:
        the log's rows, sorted by index.

    Raises:
        InputError: the file cannot be read; or, with the line's number, a column is missing, a
            value is invalid, an index comes twice, a label differs from the data set's, or a radius
            is larger than such noise can prove.
    """
    text = _read_text(path)
    if "\0" in text:
        raise InputError(f"{path}: expected a certification log as text, got a binary file")
    rows = _rows(text)
    first, header = next(rows, (1, []))
    header = [name.lower() for name in header]
    missing = [name for name in COLUMNS if name not in header]
    if missing:
        raise InputError(
            f"{path}, line {first}: expected columns {', '.join(COLUMNS)}; "
            f"got {', '.join(header) or 'none'}: {', '.join(missing)} missing"
        )
    twice = [name for name in COLUMNS if header.count(name) > 1]
    if twice:
        raise InputError(f"{path}, line {first}: expected each column once, got {twice[0]} twice")
    seen: dict[int, int] = {}
    found: list[tuple[int, int, int, float]] = []
    for line, cells in rows:
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
    """Return index, label, prediction and radius of one line."""
    index = _integer(where, "idx", cells["idx"], 0, len(labels) - 1)
    label = _integer(where, "label", cells["label"], 0, classes - 1)
    prediction = _integer(where, "predict", cells["predict"], ABSTAINED, classes - 1)
    correct = TRUTH.get(cells["correct"].lower(), cells["correct"])
    right = _integer(where, "correct", correct, 0, 1)
    if label != labels[index]:
        raise InputError(
            f"{where}: expected label {labels[index]}, the data set's at idx {index}; got {label}"
        )
    try:
        radius = float(cells["radius"].replace(",", "."))
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


def _rows(text: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows that are not blank, with line numbers; the first one shows the separator."""
    lines = text.splitlines()
    header = next((line for line in lines if line.strip()), "")
    separator = next((each for each in SEPARATORS if each in header), None)
    width = None
    for number, line in enumerate(lines, start=1):
        cells = _cells(line, separator)
        # Spreadsheets fill rows with empty cells behind the last column.
        while len(cells) > (width or 0) and not cells[-1]:
            cells.pop()
        if any(cells):
            width = width or len(cells)
            yield number, cells


def _cells(line: str, separator: str | None) -> list[str]:
    """Return the cells of one line; without a separator, spaces separate them."""
    if separator is None:
        return line.split()
    try:
        return [cell.strip() for cell in next(csv.reader([line], delimiter=separator), [])]
    except csv.Error:  # a cell with more characters than csv accepts
        return line.split(separator)


def _integer(where: str, name: str, text: str, low: int, high: int) -> int:
    whole = re.fullmatch(r"([+-]?[0-9]{1,9})(\.0*)?", text)
    value = int(whole[1]) if whole else None
    if value is None or not low <= value <= high:
        raise InputError(f"{where}: expected {name} from {low} to {high}, got {text!r}")
    return value


def _read_text(path: Path) -> str:
    try:
        content = path.read_bytes()
        if content.startswith(GZIP_MAGIC):
            content = gzip.decompress(content)
        marks = [mark for mark in BYTE_ORDER_MARKS if content.startswith(mark)]
        return content.decode(BYTE_ORDER_MARKS[marks[0]] if marks else "utf-8")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as a certification log: {error}") from error
