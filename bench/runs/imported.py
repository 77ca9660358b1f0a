"""Keep results that others made as a run of its own, completely or not at all, each file once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bench.data import Dataset
from bench.runs.kind import MadeKind
from bench.runs.resume import choose_folder, is_sound, restore_manifest
from bench.runs.session import RunResult, complete
from bench.store import Store
from bench.store.manifest import Manifest
from bench.store.summary import Flag
from bench.store.tables import Tables


def keep(
    kind: MadeKind,
    manifest: Manifest,
    dataset: Dataset,
    store: Store,
    read: Callable[[], tuple[Tables, Sequence[Flag]]],
    notice: Callable[[str], None] = lambda _: None,
) -> RunResult:
    """Keep a run that was made elsewhere; damaged files of an earlier import are set aside.

    Args:
        kind: kind of the run.
        dataset: samples of the run.
        read: returns the tables and the flags that they raise; called when the run is locked.
        notice: called with messages for the user that are no errors.

    Returns:
        the run; reused if the same file was imported before and its run is sound.

    Raises:
        InputError: another process writes the run, or the results folder cannot be written.
    """
    folder, manifest = choose_folder(manifest, store, again=False, notice=notice)
    with folder.locked():
        restore_manifest(folder, manifest, notice)
        if folder.is_complete and is_sound(folder, notice):
            return RunResult(folder.summary(), folder, reused=True)
        folder.begin(manifest)
        tables, raised = read()
        summary = complete(folder, kind, dataset, tables, raised)
    return RunResult(summary, folder, reused=False)
