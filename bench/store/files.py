"""Files that appear whole or not at all, and are named when they are damaged."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import time
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ValidationError

from bench.errors import InputError
from bench.store.kinds import kind_named
from bench.store.manifest import SCHEMA_VERSION
from bench.validation import explain

MANIFEST, SUMMARY = "manifest.json", "run.json"
"""Names of a run's records."""

BESIDE = b"bench"
"""Key of what a parquet file keeps beside its table."""

LONGEST_NAME = 150
"""Most characters in a file's name. File systems allow 255 bytes; the rest is left for endings."""

RecordType = TypeVar("RecordType", bound=BaseModel)

UNREADABLE = (
    OSError,
    ValueError,
    KeyError,
    EOFError,
    zipfile.BadZipFile,
    zlib.error,
    pa.ArrowException,
)
"""Errors that reading a truncated or changed file raises."""


def safe_name(name: str) -> str:
    """Return a name that is safe for a file: other characters than letters, digits, ._- become -.

    A name that is too long for file systems is cut, and a digest of the whole name is appended.
    """
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".") or "-"
    if len(safe) <= LONGEST_NAME:
        return safe
    return f"{safe[: LONGEST_NAME - 13]}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"


def set_aside(path: Path) -> Path:
    """Rename a damaged file or folder, so that it is neither read nor overwritten."""
    target = path.with_name(f"{path.name}.damaged-{time.strftime('%Y%m%dT%H%M%S')}")
    counter = 0
    while target.exists():
        counter += 1
        target = path.with_name(f"{path.name}.damaged-{time.strftime('%Y%m%dT%H%M%S')}-{counter}")
    path.rename(target)
    return target


def write(path: Path, content: bytes) -> None:
    """Write a file as a whole: under another name, which is synced and then renamed.

    A device or a pipe, such as /dev/stdout, is written to directly.

    Raises:
        OSError: it cannot be written; the error names the file. Nothing of it is left.
    """
    if path.exists() and not path.is_file():
        path.write_bytes(content)
        return
    if path.is_symlink():
        path = Path(os.path.realpath(path))
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if os.name == "posix":
        descriptor = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_json(path: Path, record: BaseModel) -> None:
    """Write a record as a whole."""
    write(path, (json.dumps(record.model_dump(mode="json"), indent=2) + "\n").encode())


def read_json(path: Path, kind: type[RecordType]) -> RecordType:
    """Read a record.

    Raises:
        InputError: the file is missing, damaged or of another schema version.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise damage_error(path, error) from error
    found = content.get("schema_version") if isinstance(content, dict) else None
    if found != SCHEMA_VERSION:
        raise InputError(
            f"{path}: expected schema version {SCHEMA_VERSION}, got {found}; read it with the "
            "release of bench that wrote it, or move it away and run again"
        )
    try:
        return kind.model_validate(content)
    except InputError as error:  # intact, but not supported by this release
        raise InputError(f"{path}: {error}; move the run's folder away") from error
    except ValidationError as error:
        raise damage_error(path, InputError("; ".join(explain(kind, error)))) from error


def damage_error(path: Path, error: Exception) -> InputError:
    """Return the error that names a damaged file of a run and the way out."""
    reason = " ".join(str(error).split())[:160]
    return InputError(
        f"{path}: damaged ({reason}); {_command(path.parent)} sets it aside and makes it again"
    )


def _command(folder: Path) -> str:
    """Return, in words, the command that makes the run in a folder."""
    for name, within in ((MANIFEST, ()), (SUMMARY, ("manifest",))):
        with contextlib.suppress(*UNREADABLE, TypeError, InputError):
            content = json.loads((folder / name).read_text(encoding="utf-8"))
            for key in within:
                content = content[key]
            return f"the same `{kind_named(content['kind']).command}`"
    return "the command that made it"


def write_table(
    path: Path, table: pd.DataFrame, schema: pa.Schema, beside: Mapping[str, Any] | None = None
) -> None:
    """Write a table as a whole, as parquet with checksums of its pages.

    Args:
        beside: plain data that the file keeps beside the table, see `read_beside`.
    """
    buffer = io.BytesIO()
    content = pa.Table.from_pandas(table, schema=schema, preserve_index=False)
    if beside is not None:
        kept = {**(content.schema.metadata or {}), BESIDE: json.dumps(beside).encode()}
        content = content.replace_schema_metadata(kept)
    pq.write_table(content, buffer, write_page_checksum=True)
    write(path, buffer.getvalue())


def read_beside(path: Path) -> dict[str, Any] | None:
    """Return the plain data that a table's file keeps beside it; None if it keeps none.

    Raises:
        InputError: the file is missing or damaged.
    """
    try:
        kept = (pq.read_schema(path).metadata or {}).get(BESIDE)
        return None if kept is None else dict(json.loads(kept))
    except (*UNREADABLE, TypeError) as error:
        raise damage_error(path, error) from error


def read_table(path: Path) -> pd.DataFrame:
    """Read a table; integer columns become nullable.

    Raises:
        InputError: the file is missing or damaged.
    """
    try:
        table = pq.read_table(path, page_checksum_verification=True)
    except UNREADABLE as error:
        raise damage_error(path, error) from error
    frame: pd.DataFrame = table.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get)
    return frame
