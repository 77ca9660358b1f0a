"""The results folder."""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from bench.errors import InputError
from bench.store.files import MANIFEST, safe_name
from bench.store.kinds import Kind
from bench.store.manifest import Manifest
from bench.store.run_folder import RunFolder
from bench.store.summary import Summary

Found = TypeVar("Found")

_logger = logging.getLogger(__name__)


class Store:
    """The results folder.

    Args:
        root: the folder; it is created when the first run begins.
        skips_unreadable: whether `summaries` leaves out runs whose summary or table of samples
            cannot be read, each of them logged once, instead of raising their errors.
    """

    def __init__(self, root: Path, skips_unreadable: bool = False) -> None:
        self.root = root
        self.skips_unreadable = skips_unreadable

    def __repr__(self) -> str:
        return f"Store({str(self.root)!r})"

    def folder(self, manifest: Manifest) -> RunFolder:
        """Return the folder of the run that a manifest names, whether it exists or not."""
        path = self.root / safe_name(manifest.suite) / safe_name(manifest.candidate) / manifest.run
        return RunFolder(path)

    def runs(self, suite: str | None = None, candidate: str | None = None) -> list[RunFolder]:
        """Return all run folders, of one suite or candidate if named, by path."""
        names = [safe_name(name) if name else "*" for name in (suite, candidate)]
        pattern = "/".join([*names, "*", MANIFEST])
        return [
            RunFolder(path.parent)
            for path in sorted(self.root.glob(pattern))
            if ".damaged-" not in path.parent.name
        ]

    def summaries(self, suite: str | None = None, candidate: str | None = None) -> list[Summary]:
        """Return the summaries of the complete runs, oldest first.

        Raises:
            InputError: a damaged summary, or one of another schema version, unless the store skips
                them.
        """
        if self.skips_unreadable:
            found = self.readable(_summary_with_samples, suite, candidate)
        else:
            found = [run.summary() for run in self.runs(suite, candidate) if run.is_complete]
        return sorted(found, key=lambda summary: summary.finished)

    def readable(
        self,
        read: Callable[[RunFolder], Found],
        suite: str | None = None,
        candidate: str | None = None,
    ) -> list[Found]:
        """Return what `read` returns of each complete run, by path.

        A run of which it raises an `InputError` is left out, and logged once: a record that is
        damaged or of another schema version does not stop work on other candidates.
        """
        found = []
        for run in self.runs(suite, candidate):
            try:
                if run.is_complete:
                    found.append(read(run))
            except InputError as error:
                _log_once(f"left out, since it cannot be read: {error}")
        return found

    def readable_summaries(self) -> list[Summary]:
        """Return the summaries of the complete runs that this release can read, oldest first."""
        found = []
        for run in self.runs():
            with contextlib.suppress(InputError):
                if run.is_complete:
                    found.append(run.summary())
        return found

    def newest(self, reference: str) -> RunFolder:
        """Return the run that SUITE/CANDIDATE[@RUN] names, finished or not.

        Without @RUN it is the one that was written to last.

        Raises:
            InputError: no such run.
        """
        suite, _, rest = reference.partition("/")
        candidate, _, run = rest.partition("@")
        found = [
            folder
            for folder in self.runs(suite, candidate or "-")
            if folder.path.name.startswith(run)
        ]
        if found:
            return max(found, key=lambda folder: folder.written)
        known = sorted({f"{each.path.parts[-3]}/{each.path.parts[-2]}" for each in self.runs()})
        raise InputError(
            f"no run {reference!r} in {self.root}: expected SUITE/CANDIDATE[@RUN], "
            f"one of {', '.join(known) or '(none)'}"
        )

    def summary(
        self, reference: str, prefer: Callable[[Kind], bool] = lambda kind: True
    ) -> Summary:
        """Return the summary that SUITE/CANDIDATE[@RUN] names.

        Without @RUN it is the newest complete run: of a preferred kind if there is one, and an
        imported run only if there is no other.

        Raises:
            InputError: no such run, or one that is not finished.
        """
        suite, _, rest = reference.partition("/")
        candidate, _, run = rest.partition("@")
        found = [
            summary
            for summary in self.summaries(suite, candidate or "-")
            if summary.run.startswith(run)
        ]
        if not found:
            begun = [
                folder
                for folder in self.runs(suite, candidate or "-")
                if folder.path.name.startswith(run)
            ]
            if begun:
                raise InputError(
                    f"run {reference!r} in {self.root} is not finished; the same command that "
                    "began it goes on with it"
                )
            complete = [folder for folder in self.runs() if folder.is_complete]
            known = sorted({f"{each.path.parts[-3]}/{each.path.parts[-2]}" for each in complete})
            raise InputError(
                f"no complete run {reference!r} in {self.root}: expected SUITE/CANDIDATE[@RUN], "
                f"one of {', '.join(known) or '(none)'}"
            )
        if run:
            return found[-1]
        return sorted(found, key=lambda each: (prefer(each.kind), not each.kind.is_imported))[-1]


def _summary_with_samples(run: RunFolder) -> Summary:
    """Return the summary of a run whose table of samples can be read, too."""
    summary = run.summary()
    run.samples()
    return summary


@functools.cache
def _log_once(text: str) -> None:
    """Log a warning, unless this process has logged it before."""
    _logger.warning("%s", text)
