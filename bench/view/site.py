"""A site that is built again when its store has changed; readers see a whole one at any time."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import tempfile
import threading
from pathlib import Path

from bench.errors import BenchError
from bench.pages.addresses import INDEX, suite_page
from bench.pages.build import build_report
from bench.store import Store, safe_name

_logger = logging.getLogger(__name__)

Signature = dict[str, frozenset[tuple[str, int, int]]]
"""For each suite's folder, the complete runs: path, time and size of the summary."""


class LiveSite:
    """The pages of a store in a temporary folder.

    Each build is a folder of its own, which replaces the one before it as a whole. Pages of suites
    whose runs have not changed are taken over.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._root = Path(tempfile.mkdtemp(prefix="bench-view-"))
        self._current: Path | None = None
        self._signature: Signature = {}
        self._number = 0
        self._lock, self._building = threading.Lock(), threading.Lock()

    def __enter__(self) -> LiveSite:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self._root, ignore_errors=True)

    @property
    def is_empty(self) -> bool:
        """Whether no run was complete at the last build."""
        return self._current is None

    def read(self, address: str) -> bytes | None:
        """Return a page; None if the site has none there.

        Args:
            address: relative to the site, with `/`; names of folders have no page.
        """
        with self._lock:
            folder = self._current
        if folder is None or not address:
            return None
        parts = address.split("/")
        if any(part in {"", ".", ".."} or "\\" in part or "\0" in part for part in parts):
            return None
        path = folder.joinpath(*parts)
        with contextlib.suppress(OSError):
            if path.is_file() and path.resolve().is_relative_to(folder.resolve()):
                return path.read_bytes()
        return None

    def refresh(self) -> bool:
        """Build the pages of suites whose complete runs have changed; return whether any had.

        A build that fails leaves the site as it was, and is logged.
        """
        with self._building:
            return self._refresh()

    def _refresh(self) -> bool:
        signature = _signature(self._store)
        changed = {
            suite
            for suite in signature.keys() | self._signature.keys()
            if signature.get(suite) != self._signature.get(suite)
        }
        if not changed:
            return False
        try:
            built = self._build(signature, changed) if signature else None
        except BenchError as error:
            _logger.warning("the pages were not built again: %s", error)
            self._signature = signature  # the same runs would fail again
            return False
        with self._lock:
            old, self._current = self._current, built
        self._signature = signature
        if old is not None:
            shutil.rmtree(old, ignore_errors=True)
        return True

    def _build(self, signature: Signature, changed: set[str]) -> Path:
        self._number += 1
        folder = self._root / str(self._number)
        folder.mkdir()
        taken = {suite for suite in signature if suite not in changed}
        if self._current is not None:
            _take_over(self._current, folder, taken)
        build_report(self._store, folder, _suites(self._store, changed & signature.keys()))
        return folder


def _signature(store: Store) -> Signature:
    found: dict[str, set[tuple[str, int, int]]] = {}
    for folder in store.runs():
        with contextlib.suppress(OSError):
            status = (folder.path / "run.json").stat()
            mark = (str(folder.path), status.st_mtime_ns, status.st_size)
            found.setdefault(folder.path.parts[-3], set()).add(mark)
    return {suite: frozenset(marks) for suite, marks in found.items()}


def _suites(store: Store, folders: set[str]) -> list[str] | None:
    """Return the names of suites by their folders; None: all, where a name cannot be told."""
    names = {run.manifest.suite for run in store.readable_summaries()}
    named = [name for name in sorted(names) if safe_name(name) in folders]
    return named or None


def _take_over(old: Path, new: Path, suites: set[str]) -> None:
    """Link the pages of some suites into the new folder."""
    for suite in suites:
        page = suite_page(suite)
        for source in (old / page, *sorted((old / page.removesuffix(".html")).rglob("*"))):
            if source.is_file() and source.name != INDEX:
                target = new / source.relative_to(old)
                target.parent.mkdir(parents=True, exist_ok=True)
                os.link(source, target)
