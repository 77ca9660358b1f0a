"""Resume a run where it stopped: find its folder, and check which of its files are sound."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from bench.candidates.identity import in_short
from bench.errors import InputError
from bench.runs.manifest import next_repetition
from bench.runs.observer import Observer
from bench.store import RunFolder, Store
from bench.store.manifest import Manifest
from bench.store.records import Block
from bench.store.same_candidate import same_candidate


def choose_folder(
    manifest: Manifest, store: Store, again: bool, notice: Callable[[str], None]
) -> tuple[RunFolder, Manifest]:
    """Return the folder of the run to finish or to show, or of a new one, and its manifest.

    It is the newest repetition of exactly this candidate that has begun. It is a new one if there
    is none, or if that one is complete and `again` asks for another.

    Args:
        notice: called with the reason why a run is not resumed.
    """
    found: tuple[RunFolder, Manifest] | None = None
    others: list[str] = []
    while (folder := store.folder(manifest)).has_begun:
        recorded = _recorded(folder)
        # Whoever resumes an unreadable run sets its damaged files aside. A log comes without its
        # candidate: the digests of suite, data and file say all of it.
        is_log = manifest.unidentified is None
        if recorded is None or is_log or same_candidate(recorded, manifest):
            found = folder, manifest
        else:
            others.append(folder.path.name)
        manifest = next_repetition(manifest)
    if manifest.unidentified:
        notice(in_short(manifest.unidentified))
    elif found is None and others:
        notice(
            f"a new run: its answers differ from those when run {others[-1]} was made, though its "
            "files, weights and code are the same (another version of a package, or something "
            "read from elsewhere?)"
        )
    elif found is None and (before := _before_a_change(manifest, store)) is not None:
        notice(
            f"a new run: its files, its weights, its code or its options changed since run {before}"
        )
    if found is not None and not (again and found[0].is_complete):
        return found
    return folder, manifest


def _recorded(folder: RunFolder) -> Manifest | None:
    """Return the manifest of a run that has begun; None if it is damaged."""
    for read in (folder.manifest, lambda: folder.summary().manifest):
        with contextlib.suppress(InputError):
            return read()
    return None


def _before_a_change(manifest: Manifest, store: Store) -> str | None:
    """Return the name of a complete run that differs from this one only in the candidate."""
    for folder in store.runs(manifest.suite, manifest.candidate):
        other = _recorded(folder) if folder.is_complete else None
        if other is None:
            continue
        changed = {
            "weights_sha256": manifest.weights_sha256,
            "definition_sha256": manifest.definition_sha256,
            "repetition": manifest.repetition,
        }
        if other.model_copy(update=changed).run == manifest.run:
            return other.run
    return None


def is_sound(folder: RunFolder, observer: Observer) -> bool:
    """Return whether a complete run's files can be read; damaged ones are set aside."""
    damaged = folder.verify_tables()
    for moved in folder.set_aside_damaged(damaged) if damaged else ():
        observer.notice(f"damaged, set aside as {moved}; what it held is computed again")
    return not damaged


def finished_blocks(folder: RunFolder, observer: Observer) -> dict[str, Block]:
    """Return the blocks finished so far by key; damaged ones are set aside."""
    finished, damaged = folder.blocks()
    for path in damaged:
        observer.notice(f"damaged, set aside as {path}; its block is computed again")
    if finished:
        observer.notice(f"resuming: {len(finished)} blocks are finished")
    return finished
