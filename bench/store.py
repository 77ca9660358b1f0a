"""The only module that knows the files under the results folder.

`<results>/<suite>/<candidate>/<run>/` holds, in the order of their writing: `manifest.json`, one
file a block in `parts/`, then `samples.parquet`, `attempts.parquet`, `witnesses.npz` and
`run.json`. Every file appears whole: it is written under another name, synced and renamed. A run is
complete when `run.json` is there; the parts are removed after it.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import time
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import filelock
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ValidationError

from bench.errors import InputError
from bench.records import (
    SCHEMA_VERSION,
    Attempts,
    Block,
    Certificates,
    CleanResults,
    ImageArray,
    Manifest,
    Summary,
    SweepResults,
    SweepStarts,
    Witnesses,
)

MANIFEST, SUMMARY = "manifest.json", "run.json"
SAMPLES, ATTEMPTS, WITNESSES = "samples.parquet", "attempts.parquet", "witnesses.npz"

MIX_COLUMNS = (
    "alpha_clean",
    "alpha_adversarial",
    "accurate_margin_clean",
    "robust_margin_clean",
    "accurate_margin_adversarial",
    "robust_margin_adversarial",
)
"""Of the samples of a mix, see `bench.mix_records`; null for other candidates."""

SAMPLE_SCHEMA = pa.schema(
    [
        ("index", pa.int64()),
        ("label", pa.int64()),
        ("clean_prediction", pa.int64()),
        ("clean_correct", pa.bool_()),
        ("robust", pa.bool_()),
        ("broken_by", pa.string()),
        ("adversarial_prediction", pa.int64()),
        *((name, pa.float64()) for name in MIX_COLUMNS),
    ]
)
SWEEP_SCHEMA = pa.schema(
    [
        ("alpha", pa.float64()),
        ("index", pa.int64()),
        ("label", pa.int64()),
        ("clean_prediction", pa.int64()),
        ("clean_correct", pa.bool_()),
        ("robust", pa.bool_()),
        ("broken_by", pa.string()),
        ("adversarial_prediction", pa.int64()),
        ("witness", pa.int64()),
    ]
)
CERTIFICATE_SCHEMA = pa.schema(
    [
        ("index", pa.int64()),
        ("label", pa.int64()),
        ("prediction", pa.int64()),
        ("radius", pa.float64()),
        ("certified_count", pa.int64()),
        ("noise_samples", pa.int64()),
    ]
)
ATTEMPT_SCHEMA = pa.schema(
    [
        ("index", pa.int64()),
        ("attack", pa.string()),
        ("outcome", pa.string()),
        ("iteration", pa.int64()),
        ("forward_passes", pa.float64()),
        ("backward_passes", pa.float64()),
        ("seconds", pa.float64()),
    ]
)
SWEEP_ATTEMPT_SCHEMA = ATTEMPT_SCHEMA.insert(0, pa.field("alpha", pa.float64()))

RecordType = TypeVar("RecordType", bound=BaseModel)

_UNREADABLE = (
    OSError,
    ValueError,
    KeyError,
    EOFError,
    zipfile.BadZipFile,
    zlib.error,
    pa.ArrowException,
)


@dataclass(frozen=True)
class Tables:
    """A run's records, joined from its blocks.

    Attributes:
        samples: columns of `SAMPLE_SCHEMA`, or of `CERTIFICATE_SCHEMA` where samples were
            certified; sorted by index. Of a sweep, columns of `SWEEP_SCHEMA`, by weight and index.
        attempts: columns of `ATTEMPT_SCHEMA`, of a sweep `SWEEP_ATTEMPT_SCHEMA`, in the order of
            the blocks.
        witnesses: sorted by index; of a sweep, which may have several of a sample, in the order in
            which they were found.
    """

    samples: pd.DataFrame
    attempts: pd.DataFrame
    witnesses: Witnesses | None

    def certificates(self) -> Certificates:
        """The samples of a certification or an imported log."""
        columns = self.samples.fillna(-1)
        return Certificates(
            **{
                name: columns[name].to_numpy(np.float64 if name == "radius" else np.int64)
                for name in CERTIFICATE_SCHEMA.names
            }
        )


class Store:
    """The results folder.

    Args:
        root: the folder; it is made when the first run is opened.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def __repr__(self) -> str:
        return f"Store({str(self.root)!r})"

    def folder(self, manifest: Manifest) -> RunFolder:
        """The folder of the run that a manifest names, whether it exists or not."""
        path = self.root / manifest.suite / safe_name(manifest.candidate) / manifest.run
        return RunFolder(path)

    def runs(self, suite: str | None = None, candidate: str | None = None) -> list[RunFolder]:
        """All run folders, of one suite or candidate if named, by path."""
        names = [safe_name(name) if name else "*" for name in (suite, candidate)]
        pattern = "/".join([*names, "*", MANIFEST])
        return [
            RunFolder(path.parent)
            for path in sorted(self.root.glob(pattern))
            if ".damaged-" not in path.parent.name
        ]

    def summaries(self, suite: str | None = None, candidate: str | None = None) -> list[Summary]:
        """Summaries of the complete runs, oldest first.

        Raises:
            InputError: a damaged summary, or one of another schema version.
        """
        found = [run.summary() for run in self.runs(suite, candidate) if run.is_complete]
        return sorted(found, key=lambda summary: summary.finished)

    def readable_summaries(self) -> list[Summary]:
        """Summaries of the complete runs that are neither damaged nor of another schema version."""
        found = []
        for run in self.runs():
            with contextlib.suppress(InputError):
                if run.is_complete:
                    found.append(run.summary())
        return found

    def summary(self, reference: str) -> Summary:
        """The summary that SUITE/CANDIDATE[@RUN] names.

        Without @RUN the newest complete one, and one of imported witnesses only if there is none
        else.

        Raises:
            InputError: no such run.
        """
        suite, _, rest = reference.partition("/")
        candidate, _, run = rest.partition("@")
        found = [
            summary
            for summary in self.summaries(suite, candidate or "-")
            if summary.run.startswith(run)
        ]
        if not found:
            known = sorted({f"{run.path.parts[-3]}/{run.path.parts[-2]}" for run in self.runs()})
            raise InputError(
                f"no complete run {reference!r} in {self.root}: expected SUITE/CANDIDATE[@RUN], "
                f"one of {', '.join(known) or '(none)'}"
            )
        own = [summary for summary in found if summary.manifest.kind != "imported-witnesses"]
        return (found if run else own or found)[-1]


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

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run for this process; the lock ends with the process, however it ends.

        Raises:
            InputError: another process holds it, or the folder cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            # Beside the folder, so that it stays held when a damaged folder is set aside.
            lock = filelock.FileLock(self.path.with_name(f".{self.path.name}.lock"), timeout=0)
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

    def begin(self, manifest: Manifest) -> None:
        """Write the manifest, unless it is there; it is never changed."""
        if not self.has_begun:
            (self.path / "parts").mkdir(exist_ok=True)
            _write_json(self.path / MANIFEST, manifest)

    def manifest(self) -> Manifest:
        """The manifest.

        Raises:
            InputError: it is damaged or of another schema version.
        """
        return _read_json(self.path / MANIFEST, Manifest)

    def summary(self) -> Summary:
        """The summary of a complete run.

        Raises:
            InputError: it is damaged or of another schema version.
        """
        return _read_json(self.path / SUMMARY, Summary)

    def append(self, block: Block) -> None:
        """Keep a finished block."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **_block_arrays(block))
        _write(self.path / "parts" / f"{block.key}.npz", buffer.getvalue())

    def blocks(self) -> tuple[dict[str, Block], list[Path]]:
        """The blocks finished so far by key; damaged files are set aside and named.

        Returns:
            blocks, and the new paths of the files that could not be read.
        """
        blocks: dict[str, Block] = {}
        damaged: list[Path] = []
        for path in sorted((self.path / "parts").glob("*.npz")):
            try:
                blocks[path.stem] = _read_block(path)
            except _UNREADABLE:
                damaged.append(set_aside(path))
        return blocks, damaged

    def finish(self, tables: Tables, summary: Summary, clean_images: ImageArray) -> None:
        """Write the tables and the summary, then remove the parts.

        Args:
            clean_images: (n, C, H, W), one for each witness, against which it is packed.
        """
        sample_schema, attempt_schema = _schemas(tables)
        _write_table(self.path / SAMPLES, tables.samples, sample_schema)
        _write_table(self.path / ATTEMPTS, tables.attempts, attempt_schema)
        if tables.witnesses is not None:
            _write(self.path / WITNESSES, _pack_witnesses(tables.witnesses, clean_images))
        _write_json(self.path / SUMMARY, summary)
        shutil.rmtree(self.path / "parts", ignore_errors=True)

    def samples(self) -> pd.DataFrame:
        """One row a sample: columns of `SAMPLE_SCHEMA` or, if certified, `CERTIFICATE_SCHEMA`.

        Of a sweep, one row a sample at one weight: columns of `SWEEP_SCHEMA`.

        Raises:
            InputError: the file is missing or damaged.
        """
        return _read_table(self.path / SAMPLES)

    def attempts(self) -> pd.DataFrame:
        """One row an attempt: columns of `ATTEMPT_SCHEMA`.

        Raises:
            InputError: the file is missing or damaged.
        """
        return _read_table(self.path / ATTEMPTS)

    def witnesses(
        self, images: ImageArray, indices: Sequence[int], others: bool = False
    ) -> Witnesses | None:
        """The witnesses; None if no sample was broken by an attack.

        Args:
            images: (N, C, H, W) clean images, float32.
            indices: (N,) their places in the data set.
            others: whether the run may have witnesses of other samples too; they are left out.

        Raises:
            InputError: the file is damaged.
        """
        path = self.path / WITNESSES
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
                images=_apply_difference(images[[place[i] for i in index.tolist()]], difference),
            )
        except _UNREADABLE as error:
            raise _damaged(path, error) from error

    @property
    def witness_bytes(self) -> int:
        """Size of the file with the witnesses; 0 if there are none."""
        path = self.path / WITNESSES
        return path.stat().st_size if path.exists() else 0

    @property
    def has_tables(self) -> bool:
        """Whether the tables are written, all of them: then only the summary can be missing."""
        names = (SAMPLES, ATTEMPTS)
        return not (self.path / "parts").is_dir() and all((self.path / n).is_file() for n in names)

    def tables(self, images: ImageArray, indices: Sequence[int]) -> Tables:
        """All tables of a complete run; arguments as in `witnesses`.

        Raises:
            InputError: a file is missing or damaged.
        """
        return Tables(self.samples(), self.attempts(), self.witnesses(images, indices))

    def set_aside_damaged(self, damaged: Sequence[Path]) -> list[Path]:
        """Rename what is damaged: the summary alone if only it is, else the whole run.

        Returns:
            the new paths.
        """
        if all(path.name == SUMMARY for path in damaged):
            return [set_aside(path) for path in damaged]
        aside = set_aside(self.path)
        (self.path / "parts").mkdir(parents=True)
        return [aside / path.name for path in damaged]

    def verify_tables(self) -> list[Path]:
        """The damaged files of a complete run, by reading all of them."""
        damaged = []
        for name in (SAMPLES, ATTEMPTS):
            try:
                _read_table(self.path / name)
            except InputError:
                damaged.append(self.path / name)
        try:
            self.summary()
        except InputError:
            damaged.append(self.path / SUMMARY)
        path = self.path / WITNESSES
        if path.exists():
            try:
                with np.load(path, allow_pickle=False) as archive:
                    for key in archive.files:
                        archive[key]
            except _UNREADABLE:
                damaged.append(path)
        return damaged


def join_blocks(blocks: Sequence[Block]) -> Tables:
    """The tables that a run's blocks make together; a sample's first witness counts."""
    certificates = [block.certificates for block in blocks if block.certificates is not None]
    if certificates:
        return certificate_tables(certificates)
    if any(block.sweep is not None for block in blocks):
        return sweep_tables(blocks)
    clean = [block.clean for block in blocks if block.clean is not None]
    samples = pd.concat([pd.DataFrame(vars(part)) for part in clean], ignore_index=True)
    samples = samples.rename(columns={"prediction": "clean_prediction"})
    samples = samples.sort_values("index", ignore_index=True)
    samples["clean_correct"] = samples["clean_prediction"] == samples["label"]
    attempts = pd.concat(
        [
            pd.DataFrame(columns=ATTEMPT_SCHEMA.names),
            *(pd.DataFrame(vars(block.attempts)) for block in blocks if block.attempts is not None),
        ],
        ignore_index=True,
    )
    witnesses = _join_witnesses(
        [block.witnesses for block in blocks if block.witnesses is not None]
    )
    broken_by: dict[int, str] = {}
    adversarial: dict[int, int] = {}
    if witnesses is not None:
        index = witnesses.index.tolist()
        broken_by = dict(zip(index, witnesses.attack.tolist(), strict=True))
        adversarial = dict(zip(index, witnesses.prediction.tolist(), strict=True))
    samples["broken_by"] = samples["index"].map(broken_by.get)
    samples["adversarial_prediction"] = samples["index"].map(adversarial.get).astype("Int64")
    samples["robust"] = samples["clean_correct"] & samples["broken_by"].isna()
    known = attempts["iteration"].astype("Int64")
    attempts["iteration"] = known.where(known >= 0)
    return Tables(
        samples.reindex(columns=SAMPLE_SCHEMA.names), attempts[ATTEMPT_SCHEMA.names], witnesses
    )


def certificate_tables(parts: Sequence[Certificates]) -> Tables:
    """The tables of a certification: certificates, no attempts, no witnesses."""
    samples = pd.concat([pd.DataFrame(vars(part)) for part in parts], ignore_index=True)
    samples = samples.sort_values("index", ignore_index=True)
    for name in ("certified_count", "noise_samples"):
        known = samples[name].astype("Int64")
        samples[name] = known.where(known >= 0)
    attempts = pd.DataFrame(columns=ATTEMPT_SCHEMA.names)
    return Tables(samples[CERTIFICATE_SCHEMA.names], attempts, None)


def sweep_tables(blocks: Sequence[Block]) -> Tables:
    """The tables of a sweep: the last block's results at all weights, and every witness."""
    results = [block.sweep for block in blocks if block.sweep is not None]
    samples = pd.DataFrame(vars(results[-1]))
    attempts = [pd.DataFrame(columns=SWEEP_ATTEMPT_SCHEMA.names)]
    found: list[Witnesses] = []
    places: dict[tuple[float, int], int] = {}
    for block in blocks:
        if block.attempts is not None and block.sweep is not None:
            part = pd.DataFrame(vars(block.attempts))
            attempts.append(part.assign(alpha=block.sweep.alpha[0]))
        if block.witnesses is not None and block.sweep is not None:
            alpha = float(block.sweep.alpha[0])
            for index in block.witnesses.index.tolist():
                places[alpha, index] = len(places)
            found.append(block.witnesses)
    keys = zip(samples["found_at"].tolist(), samples["index"].tolist(), strict=True)
    samples["witness"] = pd.array([places.get(key) for key in keys], dtype="Int64")
    samples["clean_correct"] = samples["clean_prediction"] == samples["label"]
    samples["robust"] = samples["clean_correct"] & (samples["broken_by"] == "")
    samples["broken_by"] = samples["broken_by"].where(samples["broken_by"] != "", None)
    predicted = samples["adversarial_prediction"].astype("Int64")
    samples["adversarial_prediction"] = predicted.where(predicted >= 0)
    joined = pd.concat(attempts, ignore_index=True)
    known = joined["iteration"].astype("Int64")
    joined["iteration"] = known.where(known >= 0)
    return Tables(
        samples[SWEEP_SCHEMA.names],
        joined[SWEEP_ATTEMPT_SCHEMA.names],
        _concatenate_witnesses(found) if found else None,
    )


def _concatenate_witnesses(parts: Sequence[Witnesses]) -> Witnesses:
    names = [field.name for field in fields(Witnesses)]
    return Witnesses(
        **{name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    )


def _schemas(tables: Tables) -> tuple[pa.Schema, pa.Schema]:
    """Of samples and attempts."""
    if "radius" in tables.samples:
        return CERTIFICATE_SCHEMA, ATTEMPT_SCHEMA
    if "alpha" in tables.samples:
        return SWEEP_SCHEMA, SWEEP_ATTEMPT_SCHEMA
    return SAMPLE_SCHEMA, ATTEMPT_SCHEMA


def _join_witnesses(parts: Sequence[Witnesses]) -> Witnesses | None:
    if not parts:
        return None
    index = np.concatenate([part.index for part in parts])
    _, first = np.unique(index, return_index=True)
    return Witnesses(
        index=index[first],
        attack=np.concatenate([part.attack for part in parts])[first],
        prediction=np.concatenate([part.prediction for part in parts])[first],
        images=np.concatenate([part.images for part in parts])[first],
    )


def safe_name(name: str) -> str:
    """A candidate's name as a folder name; what is no letter, digit, ., _ or - becomes -."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".") or "-"


def set_aside(path: Path) -> Path:
    """Rename a damaged file or folder, so that it is neither read nor overwritten."""
    target = path.with_name(f"{path.name}.damaged-{time.strftime('%Y%m%dT%H%M%S')}")
    counter = 0
    while target.exists():
        counter += 1
        target = path.with_name(f"{path.name}.damaged-{time.strftime('%Y%m%dT%H%M%S')}-{counter}")
    path.rename(target)
    return target


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    if os.name == "posix":
        descriptor = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _write_json(path: Path, record: BaseModel) -> None:
    _write(path, (json.dumps(record.model_dump(mode="json"), indent=2) + "\n").encode())


def _read_json(path: Path, kind: type[RecordType]) -> RecordType:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from error
    found = content.get("schema_version") if isinstance(content, dict) else None
    if found != SCHEMA_VERSION:
        raise InputError(
            f"{path}: expected schema version {SCHEMA_VERSION}, got {found}; read it with the "
            "release of bench that wrote it, or move it away and run again"
        )
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> InputError:
    reason = " ".join(str(error).split())[:160]
    return InputError(
        f"{path}: damaged ({reason}); the same `bench run` sets it aside and computes it again"
    )


def _write_table(path: Path, table: pd.DataFrame, schema: pa.Schema) -> None:
    buffer = io.BytesIO()
    content = pa.Table.from_pandas(table, schema=schema, preserve_index=False)
    pq.write_table(content, buffer, write_page_checksum=True)
    _write(path, buffer.getvalue())


def _read_table(path: Path) -> pd.DataFrame:
    try:
        table = pq.read_table(path, page_checksum_verification=True)
    except _UNREADABLE as error:
        raise _damaged(path, error) from error
    frame: pd.DataFrame = table.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get)
    return frame


def _block_arrays(block: Block) -> dict[str, Any]:
    arrays: dict[str, Any] = {
        "seconds": np.float64(block.seconds),
        "record": np.array(json.dumps(dict(block.record))),
    }
    for part in ("clean", "attempts", "witnesses", "certificates", "sweep", "starts"):
        records = getattr(block, part)
        if records is not None:
            arrays |= {f"{part}.{name}": value for name, value in vars(records).items()}
    return arrays


def _read_block(path: Path) -> Block:
    with np.load(path, allow_pickle=False) as archive:
        arrays = {key: archive[key] for key in archive.files}

    def read(part: str, kind: type[Any]) -> Any:
        names = [field.name for field in fields(kind)]
        if f"{part}.{names[0]}" not in arrays:
            return None
        return kind(**{name: arrays[f"{part}.{name}"] for name in names})

    return Block(
        key=path.stem,
        seconds=float(arrays["seconds"]),
        clean=read("clean", CleanResults),
        attempts=read("attempts", Attempts),
        witnesses=read("witnesses", Witnesses),
        certificates=read("certificates", Certificates),
        sweep=read("sweep", SweepResults),
        starts=read("starts", SweepStarts),
        record=json.loads(str(arrays["record"])),
    )


def _pack_witnesses(witnesses: Witnesses, clean_images: ImageArray) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        index=witnesses.index,
        attack=witnesses.attack,
        prediction=witnesses.prediction,
        difference=_difference(clean_images, witnesses.images),
    )
    return buffer.getvalue()


def _difference(clean: ImageArray, images: ImageArray) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Difference of the bit patterns: exact whatever the rounding, and it compresses well.

    The four bytes of each difference are kept apart (one plane a byte), since the high ones are
    mostly alike.
    """
    bits = images.view(np.int32) - clean.view(np.int32)
    return np.ascontiguousarray(np.moveaxis(bits[..., None].view(np.uint8), -1, 0))


def _apply_difference(clean: ImageArray, planes: Any) -> ImageArray:
    bits = np.ascontiguousarray(np.moveaxis(planes, 0, -1)).view(np.int32)[..., 0]
    return (np.ascontiguousarray(clean).view(np.int32) + bits).view(np.float32)
