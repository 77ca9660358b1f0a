"""Going on with a run where it stopped: which folder it has, and what of it is sound."""

from __future__ import annotations

from bench.runs.manifest import next_repetition
from bench.runs.observer import Observer
from bench.store import RunFolder, Store
from bench.store.manifest import Manifest
from bench.store.records import Block


def choose_folder(manifest: Manifest, store: Store, again: bool) -> tuple[RunFolder, Manifest]:
    """Return the newest repetition of a run that has begun; with `again` one that is unfinished."""
    while True:
        folder = store.folder(manifest)
        following = next_repetition(manifest)
        if not (store.folder(following).has_begun or (again and folder.is_complete)):
            return folder, manifest
        manifest = following


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
