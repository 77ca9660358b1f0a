"""A site that is built again when its store has changed; readers see a whole one at any time."""

from __future__ import annotations

import contextlib
import logging
import shutil
import tempfile
import threading
from pathlib import Path

from bench.errors import BenchError
from bench.pages.build import build_report
from bench.store import Store

_logger = logging.getLogger(__name__)

Signature = frozenset[tuple[str, int, int]]
"""The complete runs: path, time and size of the summary."""


class LiveSite:
    """The pages of a store in a temporary folder.

    Each build is a folder of its own, which replaces the one before it as a whole. Pages that would
    be the same are taken over.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._root = Path(tempfile.mkdtemp(prefix="bench-view-"))
        self._current: Path | None = None
        self._signature: Signature = frozenset()
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
        """Build the pages anew if complete runs have changed; return whether any had.

        A build that fails leaves the site as it was, and is logged.
        """
        with self._building:
            return self._refresh()

    def _refresh(self) -> bool:
        signature = _signature(self._store)
        if signature == self._signature:
            return False
        self._signature = signature  # a build that fails would fail again on the same runs
        try:
            built = self._build() if signature else None
        except BenchError as error:
            _logger.warning("the pages were not built again: %s", error)
            return False
        except Exception:
            _logger.exception("the pages were not built again")
            return False
        with self._lock:
            old, self._current = self._current, built
        if old is not None:
            shutil.rmtree(old, ignore_errors=True)
        return True

    def _build(self) -> Path:
        self._number += 1
        folder = self._root / str(self._number)
        folder.mkdir()
        try:
            build_report(self._store, folder, earlier=self._current)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return folder


def _signature(store: Store) -> Signature:
    found = set()
    for folder in store.runs():
        with contextlib.suppress(OSError):
            status = (folder.path / "run.json").stat()
            found.add((str(folder.path), status.st_mtime_ns, status.st_size))
    return frozenset(found)
