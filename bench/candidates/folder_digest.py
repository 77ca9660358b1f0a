"""The digest of a submission's folder: the names and contents of all its files.

Whatever a submission's code reads may decide its answers: a JSON file as well as a Python file.
Left out is only what tools write by themselves, and the records and pages of this program, which
land in the folder when it is the working directory.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from bench.candidates.weights import file_sha256

TOOLS = frozenset(
    {"__pycache__", ".git", ".hg", ".svn", ".jj", ".bzr", ".DS_Store", "Thumbs.db"}
    | {".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis", ".ipynb_checkpoints"}
)
"""Names of what version control, caches and file managers keep in a folder."""

MANIFEST_FIELDS = frozenset({"schema_version", "suite", "candidate", "engine"})
"""Fields of the `manifest.json` of a run: its folder is this program's."""

PAGE_MARK = b'<meta name="generator" content="tradeoff-bench">'
"""Stands near the beginning of each page of a report."""

_LOCK = re.compile(r"\.[0-9a-f]{12}\.lock")


@dataclass(frozen=True)
class FolderDigest:
    """What was read of a folder.

    Attributes:
        sha256: digest of the names and contents of all files.
        unread: what could not be read, a line each; empty: all was read.
    """

    sha256: str
    unread: tuple[str, ...]


def folder_digest(folder: Path, known: Mapping[Path, str] = MappingProxyType({})) -> FolderDigest:
    """Return the digest of all files of a folder; where the folder lies makes no difference.

    Args:
        known: SHA-256 of files that were read before, by resolved path.
    """
    digest = hashlib.sha256()
    unread: list[str] = []
    root = folder.resolve()
    for path in _files(root):
        name = path.relative_to(root).as_posix()
        try:
            content = _content(path, root, known)
        except _OutsideError:
            unread.append(f"{name}: a link that leads out of the folder (put a copy there)")
            content = "outside"
        except OSError as error:
            unread.append(f"{name}: cannot be read: {error.strerror}")
            content = "unreadable"
        if content is not None:
            digest.update(json.dumps([name, content]).encode())
    return FolderDigest(digest.hexdigest(), tuple(unread))


class _OutsideError(Exception):
    """A link leads out of the folder."""


def _files(folder: Path) -> Iterator[Path]:
    """Return all in a folder that is no folder, or cannot be read, in the order of names."""
    try:
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError:
        yield folder
        return
    for entry in found:
        path = Path(entry.path)
        if entry.name in TOOLS or _LOCK.fullmatch(entry.name):
            continue
        if not entry.is_dir(follow_symlinks=False):
            yield path
        elif not _is_run(path):
            yield from _files(path)


def _content(path: Path, root: Path, known: Mapping[Path, str]) -> str | None:
    """Return what stands for a file's content; None for a page of a report."""
    target = path.resolve()
    if not target.is_relative_to(root):
        raise _OutsideError
    if path.is_symlink() and not target.is_file():
        return f"link to {os.readlink(path)}"
    if target.is_dir():
        os.listdir(target)  # raises what kept its files from being read
    if not target.is_file():
        return "a device"  # reading a pipe would wait for ever
    if path.suffix == ".html" and _is_page(path):
        return None
    return known.get(target) or file_sha256(path)


def _is_page(path: Path) -> bool:
    with path.open("rb") as file:
        return PAGE_MARK in file.read(1024)


def _is_run(folder: Path) -> bool:
    """Return whether a folder holds the records of a run."""
    try:
        content = json.loads((folder / "manifest.json").read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and content.keys() >= MANIFEST_FIELDS
