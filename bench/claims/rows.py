"""Read claims files: comma-separated rows into validated models; errors name file and row."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TypeVar

from bench.errors import InputError
from bench.validation import StrictModel, validate

Row = TypeVar("Row", bound=StrictModel)


def read_rows(path: Path, model: type[Row]) -> list[tuple[str, Row]]:
    """Return the rows of a UTF-8 file whose header names the model's columns.

    Returns:
        for each row its position ("file: row 7", where row 1 is the header) and its content.

    Raises:
        InputError: the file cannot be read, a column is missing or unknown, or a field is wrong.
    """
    columns = [field.alias or name for name, field in model.model_fields.items()]
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    header = rows[0] if rows else []
    if sorted(header) != sorted(columns):
        missing = ", ".join(sorted(set(columns) - set(header))) or "none"
        unknown = ", ".join(sorted(set(header) - set(columns))) or "none"
        raise InputError(
            f"{path}: row 1: expected the columns {', '.join(columns)}; missing: {missing}; "
            f"unknown or repeated: {unknown}"
        )
    found = []
    for number, row in enumerate(rows[1:], start=2):
        origin = f"{path}: row {number}"
        if len(row) != len(header):
            raise InputError(f"{origin}: expected {len(header)} fields, got {len(row)}")
        found.append((origin, validate(model, dict(zip(header, row, strict=True)), origin)))
    return found
