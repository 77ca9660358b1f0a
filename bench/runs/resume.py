"""Resume a run where it stopped: find its folder, and check which of its files are sound."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from bench.candidates.identity import in_short
from bench.errors import InputError
from bench.runs.manifest import next_repetition
from bench.runs.observer import Observer
from bench.store import RunFolder, Store
from bench.store.manifest import Manifest
from bench.store.records import Block
from bench.store.same_candidate import has_other_weights, same_candidate

_BOTH = (
    "pages show the newest one. A name of its own keeps both: in Python name=..., in a submission "
    "the field name"
)


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
    while _has_begun(folder := store.folder(manifest)):
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
            "a new run: its files, its weights, its code or its options changed since run "
            f"{before}; {_BOTH}"
        )
    elif found is None and _is_name_of_others(manifest, store):
        notice(
            f"another candidate called {manifest.candidate} has runs here, with other weights; "
            f"{_BOTH}"
        )
    if found is not None and not (again and found[0].is_complete):
        return found
    return folder, manifest


def _has_begun(folder: RunFolder) -> bool:
    """Return whether a run has begun; one that is complete may have lost its manifest."""
    return folder.has_begun or folder.is_complete


def _recorded(folder: RunFolder) -> Manifest | None:
    """Return the manifest of a run that has begun, or the summary's copy; None if both fail."""
    for read in (folder.manifest, folder.manifest_in_summary):
        with contextlib.suppress(InputError):
            return read()
    return None


def _complete(manifest: Manifest, store: Store) -> Iterator[Manifest]:
    """Yield the manifests of the complete runs of the same suite and name."""
    for folder in store.runs(manifest.suite, manifest.candidate):
        other = _recorded(folder) if folder.is_complete else None
        if other is not None:
            yield other


def _is_name_of_others(manifest: Manifest, store: Store) -> bool:
    """Return whether a complete run of the same suite and name had other weights."""
    return any(has_other_weights(manifest, other) for other in _complete(manifest, store))


def _before_a_change(manifest: Manifest, store: Store) -> str | None:
    """Return the name of a complete run that differs from this one only in the candidate."""
    for other in _complete(manifest, store):
        changed = {
            "weights_sha256": manifest.weights_sha256,
            "definition_sha256": manifest.definition_sha256,
            "repetition": manifest.repetition,
        }
        if other.model_copy(update=changed).run == manifest.run:
            return other.run
    return None


def restore_manifest(folder: RunFolder, manifest: Manifest, notice: Callable[[str], None]) -> None:
    """Write the manifest of a run again that is damaged or missing; a damaged one is set aside.

    Args:
        folder: which must be locked.
        manifest: what is written, unless the summary has the run's own. Both decide the same
            result, since the folder's name is their digest; they may name another machine and time.
        notice: called with what was done.
    """
    if not _has_begun(folder):
        return
    with contextlib.suppress(InputError):
        folder.manifest()
        return
    recorded = _recorded(folder)
    if recorded is not None and recorded.run == manifest.run:
        manifest = recorded
    aside = folder.replace_manifest(manifest)
    what = f"damaged, set aside as {aside}" if aside else f"{folder.path}: without a manifest"
    notice(f"{what}; the manifest is written again")


def is_sound(folder: RunFolder, notice: Callable[[str], None]) -> bool:
    """Return whether a complete run's files can be read; damaged ones are set aside."""
    damaged = folder.verify_tables()
    for moved in folder.set_aside_damaged(damaged) if damaged else ():
        notice(f"damaged, set aside as {moved}; what it held is made again")
    return not damaged


def finished_blocks(folder: RunFolder, observer: Observer) -> dict[str, Block]:
    """Return the blocks finished so far by key; damaged ones are set aside."""
    finished, damaged = folder.blocks()
    for path in damaged:
        observer.notice(f"damaged, set aside as {path}; its block is computed again")
    if finished:
        observer.notice(f"resuming: {len(finished)} blocks are finished")
    return finished
