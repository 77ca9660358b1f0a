"""The files of one run."""

from __future__ import annotations

import contextlib
import hashlib
import io
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import filelock
import numpy as np
import pandas as pd
from pydantic import BaseModel

from bench.errors import FULL, EvaluationError, InputError, full_disk
from bench.store.files import (
    MANIFEST,
    SUMMARY,
    UNREADABLE,
    damage_error,
    read_beside,
    read_json,
    read_table,
    set_aside,
    write,
    write_json,
    write_table,
)
from bench.store.gallery import Gallery, pack_gallery, read_gallery
from bench.store.kinds import Kind, kind_named
from bench.store.manifest import Manifest
from bench.store.packing import apply_difference, block_arrays, pack_witnesses, read_block
from bench.store.records import Block, ImageArray, Witnesses
from bench.store.summary import Summary
from bench.store.tables import SMALLEST_COLUMNS, Tables

__all__ = [
    "ATTEMPTS",
    "GALLERY",
    "MANIFEST",
    "SAMPLES",
    "SMALLEST",
    "SMALLEST_IMAGES",
    "SUMMARY",
    "WITNESSES",
    "RunFolder",
]

SAMPLES, ATTEMPTS, WITNESSES = "samples.parquet", "attempts.parquet", "witnesses.npz"
GALLERY = "gallery.npz"
SMALLEST, SMALLEST_IMAGES = "smallest.parquet", "smallest.npz"


class _OfSummary(BaseModel):
    """What a summary of any kind of run has of its manifest."""

    manifest: Manifest


class RunFolder:
    """The files of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __repr__(self) -> str:
        return f"RunFolder({str(self.path)!r})"

    @property
    def is_complete(self) -> bool:
        """Whether the run is finished."""
        return (self.path / SUMMARY).is_file()

    @property
    def has_begun(self) -> bool:
        """Whether a manifest was written."""
        return (self.path / MANIFEST).is_file()

    @property
    def written(self) -> float:
        """When something in it was last written, in seconds since 1970."""
        paths = [self.path, *self.path.iterdir(), *(self.path / "parts").glob("*.npz")]
        times = []
        for path in paths:
            with contextlib.suppress(FileNotFoundError):
                times.append(path.stat().st_mtime)
        return max(times)

    def digest(self) -> str:
        """Return the digest of the run's files; those with the images themselves are left out.

        The tables and the gallery are among the files, so that a run of other results has another
        digest. A folder without files has one, too.
        """
        found = hashlib.sha256()
        for path in sorted(self.path.glob("*")):
            if path.is_file() and path.name not in (WITNESSES, SMALLEST_IMAGES):
                found.update(path.name.encode())
                with path.open("rb") as file:
                    found.update(hashlib.file_digest(file, "sha256").digest())
        return found.hexdigest()

    @property
    def lock_path(self) -> Path:
        """The file that the process which writes the run has locked."""
        # It lies beside the folder, so that it stays locked when the folder is renamed.
        return self.path.with_name(f".{self.path.name}.lock")

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the run for this process; the lock ends when the process does, even if it is killed.

        Raises:
            InputError: another process holds it, or the folder cannot be written.
            EvaluationError: the disk is full.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = filelock.FileLock(self.lock_path, timeout=0)
            with lock:
                yield
        except filelock.Timeout as error:
            raise InputError(
                f"{self.path}: another process is writing this run; wait for it or stop it"
            ) from error
        except PermissionError as error:
            raise InputError(
                f"{self.path}: the results folder cannot be written: {error}"
            ) from error
        except OSError as error:
            # A candidate's own files are its own affair.
            is_ours = Path(str(error.filename)).is_relative_to(self.path.parent)
            if error.errno not in FULL or not is_ours:
                raise
            raise EvaluationError(full_disk(error)) from error

    def begin(self, manifest: Manifest) -> None:
        """Write the manifest, unless it is there; it is never changed."""
        if not self.has_begun:
            (self.path / "parts").mkdir(exist_ok=True)
            write_json(self.path / MANIFEST, manifest)

    def replace_manifest(self, manifest: Manifest) -> Path | None:
        """Write a damaged or missing manifest again, and set the damaged one aside.

        Returns:
            the new path of the damaged one; None if it was missing.
        """
        aside = set_aside(self.path / MANIFEST) if self.has_begun else None
        write_json(self.path / MANIFEST, manifest)
        return aside

    def manifest(self) -> Manifest:
        """Return the manifest.

        Raises:
            InputError: it is damaged or of another schema version.
        """
        return read_json(self.path / MANIFEST, Manifest)

    def manifest_in_summary(self) -> Manifest:
        """Return the copy of the manifest that the summary of a complete run has.

        Raises:
            InputError: the summary is damaged or of another schema version.
        """
        return read_json(self.path / SUMMARY, _OfSummary).manifest

    @property
    def kind(self) -> Kind:
        """The kind of the run.

        Raises:
            InputError: the manifest is damaged, or nothing registers such a kind.
        """
        return kind_named(self.manifest().kind)

    def summary(self) -> Summary:
        """Return the summary of a complete run.

        Raises:
            InputError: it is damaged or of another schema version.
        """
        return read_json(self.path / SUMMARY, self.kind.summary)

    def append(self, block: Block) -> None:
        """Keep a finished block."""
        (self.path / "parts").mkdir(exist_ok=True)
        # Images under attack hardly compress, and trying takes longer than all else here.
        buffer = io.BytesIO()
        np.savez(buffer, **block_arrays(block))
        write(self.path / "parts" / f"{block.key}.npz", buffer.getvalue())

    def blocks(self) -> tuple[dict[str, Block], list[Path]]:
        """Return the finished blocks by key, and the damaged files, which are set aside.

        Returns:
            the blocks, and the new paths of the files that could not be read.
        """
        blocks: dict[str, Block] = {}
        damaged: list[Path] = []
        kind = self.kind.block
        for path in sorted((self.path / "parts").glob("*.npz")):
            try:
                blocks[path.stem] = read_block(path, kind)
            except UNREADABLE:
                damaged.append(set_aside(path))
        return blocks, damaged

    def finish(
        self,
        tables: Tables,
        summary: Summary,
        clean_images: ImageArray,
        smallest_clean: ImageArray | None = None,
    ) -> None:
        """Write the tables and the summary, then remove the parts.

        The engine's record is kept beside the table of attempts too, so that a summary which is
        made again from the tables has it.

        Args:
            clean_images: (n, C, H, W), the clean image of each witness.
            smallest_clean: (m, C, H, W), those of the smallest perturbations, if there are any.
        """
        write_table(self.path / SAMPLES, tables.samples, tables.columns.samples)
        record = summary.engine_record
        write_table(self.path / ATTEMPTS, tables.attempts, tables.columns.attempts, record)
        if tables.witnesses is not None:
            write(self.path / WITNESSES, pack_witnesses(tables.witnesses, clean_images))
            write(self.path / GALLERY, pack_gallery(tables.witnesses, clean_images))
        if tables.smallest is not None:
            write_table(self.path / SMALLEST, tables.smallest, SMALLEST_COLUMNS)
        if tables.smallest_images is not None and smallest_clean is not None:
            packed = pack_witnesses(tables.smallest_images, smallest_clean)
            write(self.path / SMALLEST_IMAGES, packed)
        write_json(self.path / SUMMARY, summary)
        shutil.rmtree(self.path / "parts", ignore_errors=True)

    def write_summary(self, summary: Summary) -> None:
        """Replace the summary of a complete run; its tables stay."""
        write_json(self.path / SUMMARY, summary)

    def samples(self) -> pd.DataFrame:
        """Return the table of samples, with the columns of the kind of run.

        Raises:
            InputError: the file is missing or damaged.
        """
        return read_table(self.path / SAMPLES)

    def attempts(self) -> pd.DataFrame:
        """Return the table of attempts.

        Raises:
            InputError: the file is missing or damaged.
        """
        return read_table(self.path / ATTEMPTS)

    def engine_record(self) -> dict[str, float | str] | None:
        """Return the engine's record from the table of attempts.

        Tables of earlier releases have none: None.

        Raises:
            InputError: the file is missing or damaged.
        """
        return read_beside(self.path / ATTEMPTS)

    def witnesses(
        self, images: ImageArray, indices: Sequence[int], others: bool = False
    ) -> Witnesses | None:
        """Return the witnesses; None if no sample was broken by an attack.

        Args:
            images: (N, C, H, W) clean images, float32.
            indices: (N,) their places in the data set.
            others: whether to leave out witnesses of samples that are not in `indices`, instead of
                refusing them.

        Raises:
            InputError: the file is damaged.
        """
        return _read_images(self.path / WITNESSES, images, indices, others)

    def smallest(self) -> pd.DataFrame | None:
        """Return the table of smallest known perturbations; None if the run did not look for them.

        Its columns are `bench.store.tables.SMALLEST_COLUMNS`.

        Raises:
            InputError: the file is damaged.
        """
        path = self.path / SMALLEST
        return read_table(path) if path.exists() else None

    def smallest_images(self, images: ImageArray, indices: Sequence[int]) -> Witnesses | None:
        """Return the images of the smallest known perturbations; None if there are none.

        Arguments and errors are those of `witnesses`.
        """
        return _read_images(self.path / SMALLEST_IMAGES, images, indices)

    def gallery(self) -> Gallery | None:
        """Return some broken samples with their clean images; None if none are stored.

        Runs of earlier releases have none, nor has a run that broke nothing.

        Raises:
            InputError: a file is damaged.
        """
        path = self.path / GALLERY
        if not path.exists():
            return None
        try:
            return read_gallery(path, self.path / WITNESSES)
        except UNREADABLE as error:
            raise damage_error(path, error) from error

    @property
    def witness_bytes(self) -> int:
        """Size of the file with the witnesses; 0 if there are none."""
        path = self.path / WITNESSES
        return path.stat().st_size if path.exists() else 0

    @property
    def can_be_summed_up(self) -> bool:
        """Whether all that a summary is made from is written, so that only the summary is missing.

        Raises:
            InputError: the manifest or the table of attempts is damaged.
        """
        names = (SAMPLES, ATTEMPTS)
        if (self.path / "parts").is_dir() or not all((self.path / n).is_file() for n in names):
            return False
        return not self.kind.needs_record or self.engine_record() is not None

    def tables(self, images: ImageArray, indices: Sequence[int]) -> Tables:
        """Return all tables of a complete run; arguments as in `witnesses`.

        Raises:
            InputError: a file is missing or damaged.
        """
        columns = self.kind.columns
        return Tables(
            self.samples(),
            self.attempts(),
            self.witnesses(images, indices),
            columns,
            self.smallest(),
            self.smallest_images(images, indices),
        )

    def set_aside_damaged(self, damaged: Sequence[Path]) -> list[Path]:
        """Rename what is damaged: manifest and summary alone if no other is, else the whole run.

        Returns:
            the new paths.
        """
        if all(path.name in (MANIFEST, SUMMARY) for path in damaged):
            return [set_aside(path) for path in damaged]
        aside = set_aside(self.path)
        (self.path / "parts").mkdir(parents=True)
        return [aside / path.name for path in damaged]

    def verify_tables(self) -> list[Path]:
        """Read all files of a complete run and return those that are damaged or missing.

        Without its manifest no file can be judged, so that a damaged one is returned alone.
        """
        try:
            self.manifest()
        except InputError:
            return [self.path / MANIFEST]
        damaged = []
        broken = False
        for name in (SAMPLES, ATTEMPTS):
            try:
                table = read_table(self.path / name)
                broken |= "outcome" in table and bool((table["outcome"] == "broken").any())
            except InputError:
                damaged.append(self.path / name)
        try:
            self.summary()
        except InputError:
            damaged.append(self.path / SUMMARY)
        found = False
        try:
            smallest = self.smallest()
            found = smallest is not None and bool(smallest["attack"].notna().any())
        except InputError:
            damaged.append(self.path / SMALLEST)
        for name, is_needed in ((WITNESSES, broken), (SMALLEST_IMAGES, found)):
            path = self.path / name
            if path.exists():
                try:
                    with np.load(path, allow_pickle=False) as archive:
                        for key in archive.files:
                            archive[key]
                except UNREADABLE:
                    damaged.append(path)
            elif is_needed:
                damaged.append(path)
        return damaged


def _read_images(
    path: Path, images: ImageArray, indices: Sequence[int], others: bool = False
) -> Witnesses | None:
    """Return what `pack_witnesses` wrote; see `RunFolder.witnesses`."""
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
        place = {value: position for position, value in enumerate(indices)}
        if others:
            wanted = np.array([value in place for value in arrays["index"].tolist()], bool)
            arrays["difference"] = arrays["difference"][:, wanted]
            for name in ("index", "attack", "prediction"):
                arrays[name] = arrays[name][wanted]
        index, difference = arrays["index"], arrays["difference"]
        strange = [value for value in index.tolist() if value not in place]
        if strange or difference.shape[1:] != (len(index), *images.shape[1:]):
            raise InputError(
                f"{path}: expected witnesses of shape {images.shape[1:]} for samples of the "
                f"run, got {difference.shape[2:]}"
                + (f" and one for sample {strange[0]}" if strange else "")
                + "; these are witnesses of another data set"
            )
        return Witnesses(
            index=index,
            attack=arrays["attack"],
            prediction=arrays["prediction"],
            images=apply_difference(images[[place[i] for i in index.tolist()]], difference),
        )
    except UNREADABLE as error:
        raise damage_error(path, error) from error
