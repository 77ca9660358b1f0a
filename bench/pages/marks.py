"""Which pages need not be drawn again: each carries a mark of everything that it shows.

Most of the time for a site goes into drawings, and a new run changes few pages.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

import bench
from bench.store import RunFolder

HEAD = 2048
"""Bytes at the start of a page in which the mark stands."""


def mark(shown: object, runs: Iterable[RunFolder]) -> str:
    """Return the digest of all that a page is made from, this program included.

    Args:
        shown: what the page shows that is not in the tables of its runs. Its `repr` must tell
            different content apart; long arrays, which it abbreviates, must be in the tables.
        runs: whose tables the page shows.
    """
    digest = hashlib.sha256(f"{_program()} {shown!r}".encode(errors="surrogatepass"))
    for run in runs:
        digest.update(run.digest().encode())
    return digest.hexdigest()


def carries(page: Path, wanted: str) -> bool:
    """Return whether a page's file exists and carries a mark; the empty mark is never carried."""
    if not wanted or not page.is_file():
        return False
    with page.open("rb") as file:
        return f'content="{wanted}"'.encode() in file.read(HEAD)


@functools.cache
def _program() -> str:
    """Return the digest of this package's files and of the versions of what draws."""
    digest = hashlib.sha256()
    for package in ("jinja2", "matplotlib"):
        digest.update(metadata.version(package).encode())
    folder = Path(bench.__file__).parent
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return digest.hexdigest()
