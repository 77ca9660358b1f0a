"""Where an unfinished run stands, read from its folder without touching anything in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.errors import InputError
from bench.store.files import UNREADABLE
from bench.store.manifest import Manifest
from bench.store.run_folder import RunFolder
from bench.store.store import Store

LOCK_TABLE = Path("/proc/locks")


@dataclass(frozen=True)
class Stage:
    """One attack of an unfinished run, or its certification.

    Attributes:
        name: the attack's name, "clean" or "certify".
        done: samples that it is done with.
        total: samples that it takes in all, as far as is known now.
    """

    name: str
    done: int
    total: int


@dataclass(frozen=True)
class Unfinished:
    """Where an unfinished run stands.

    Attributes:
        manifest: the run's manifest.
        stages: in the order of the run; at least one.
        examples: samples whose clean prediction or certificate is known.
        right: those of them that are right.
        standing: those of them that no attack broke so far; for a certification, that are certified
            at the threat model's radius.
        blocks: finished blocks.
        newest: when the newest block was finished, in seconds since 1970.
        is_written: whether a process of this machine holds the run's lock; None: unknown.
    """

    manifest: Manifest
    stages: tuple[Stage, ...]
    examples: int
    right: int
    standing: int
    blocks: int
    newest: float
    is_written: bool | None

    @property
    def share(self) -> float:
        """The part of the work that is done, by samples and attacks, in [0, 1]."""
        total = sum(stage.total for stage in self.stages)
        return sum(stage.done for stage in self.stages) / total if total else 0.0


class Watch:
    """Follows the unfinished runs of a store; each block is read once."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._read: dict[Path, tuple[tuple[int, int], dict[str, Any]]] = {}

    def unfinished(self) -> list[Unfinished]:
        """Return the unfinished runs that can be read, those with the newest block first."""
        found: list[Unfinished] = []
        seen: dict[Path, tuple[tuple[int, int], dict[str, Any]]] = {}
        held = _held_locks()
        for folder in self._store.runs():
            if folder.is_complete:
                continue
            try:
                found.append(self._look(folder, held, seen))
            except (InputError, OSError):
                continue  # it was finished, set aside or removed meanwhile
        self._read = seen
        return sorted(found, key=lambda run: -run.newest)

    def look(self, folder: RunFolder) -> Unfinished:
        """Return where one run stands.

        Raises:
            InputError: its manifest is damaged or of another schema version.
            OSError: it was set aside or removed meanwhile.
        """
        return self._look(folder, _held_locks(), self._read)

    def _look(
        self,
        folder: RunFolder,
        held: set[int] | None,
        seen: dict[Path, tuple[tuple[int, int], dict[str, Any]]],
    ) -> Unfinished:
        manifest = folder.manifest()
        paths = sorted((folder.path / "parts").glob("*.npz"))
        arrays = [each for path in paths if (each := self._arrays(path, seen)) is not None]
        return _unfinished(manifest, arrays, _newest(folder), _is_held(folder, held))

    def _arrays(
        self, path: Path, seen: dict[Path, tuple[tuple[int, int], dict[str, Any]]]
    ) -> dict[str, Any] | None:
        """Return the arrays of a block that tell where the run stands; None: unreadable."""
        try:
            status = path.stat()
            mark = (status.st_mtime_ns, status.st_size)
            known = self._read.get(path)
            if known is None or known[0] != mark:
                with np.load(path, allow_pickle=False) as archive:
                    wanted = [name for name in archive.files if name in _WANTED]
                    known = (mark, {name: archive[name] for name in wanted})
            seen[path] = known
        except UNREADABLE:
            return None
        return known[1]


_WANTED = {
    *(f"clean.{name}" for name in ("index", "label", "prediction")),
    *(f"attempts.{name}" for name in ("index", "attack")),
    "witnesses.index",
    *(f"certificates.{name}" for name in ("index", "label", "prediction", "radius")),
}
"""Arrays of a block, see `bench.store.packing`; images are not among them."""


def _unfinished(
    manifest: Manifest, blocks: list[dict[str, Any]], newest: float, is_written: bool | None
) -> Unfinished:
    right, wrong = set[int](), set[int]()
    certified, broken = set[int](), set[int]()
    tried: dict[str, set[int]] = {}
    for block in blocks:
        for records in ("clean", "certificates"):
            if f"{records}.index" not in block:
                continue
            index, hit = block[f"{records}.index"], _hits(block, records)
            right.update(index[hit].tolist())
            wrong.update(index[~hit].tolist())
            if records == "certificates":
                far = block["certificates.radius"] >= manifest.threat_model.eps
                certified.update(index[hit & far].tolist())
        if "witnesses.index" in block:
            broken.update(block["witnesses.index"].tolist())
        if "attempts.index" in block:
            names = block["attempts.attack"]
            for name in np.unique(names).tolist():
                own = block["attempts.index"][names == name]
                tried.setdefault(str(name), set()).update(own.tolist())
    examples = len(right) + len(wrong)
    certifies = any("certificates.index" in block for block in blocks)
    name = "certify" if certifies else "clean"
    stages = [Stage(name, examples, max(manifest.selection.n, examples))]
    planned = [str(attack.get("name", "")) for attack in manifest.attacks]
    standing = right - broken
    # Whatever survives meets each attack that has not tried it.
    unknown = stages[0].total - examples
    for attack in dict.fromkeys([*planned, *tried]):
        own = tried.get(attack, set())
        stages.append(Stage(attack, len(own), len(own) + len(standing - own) + unknown))
    return Unfinished(
        manifest=manifest,
        stages=tuple(stages),
        examples=examples,
        right=len(right),
        standing=len(certified if certifies else standing),
        blocks=len(blocks),
        newest=newest,
        is_written=is_written,
    )


def _hits(block: dict[str, Any], records: str) -> Any:
    return block[f"{records}.prediction"] == block[f"{records}.label"]


def _newest(folder: RunFolder) -> float:
    parts = folder.path / "parts"
    paths = [folder.path / "manifest.json", *parts.glob("*.npz")]
    return max(path.stat().st_mtime for path in paths)


def _held_locks() -> set[int] | None:
    """Return the inode of each file that a process of this machine has locked.

    Linux lists them. Trying to lock instead would make a run that begins just then fail. None: the
    system has no such list.
    """
    try:
        lines = LOCK_TABLE.read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return None
    # Such as "1: FLOCK  ADVISORY  WRITE 8844 fe:00:2426962 0 EOF". The devices are left out, since
    # some file systems give a file another one than the list does.
    files = (word for line in lines for word in line.split() if word.count(":") == 2)
    return {int(inode) for file in files if (inode := file.rpartition(":")[2]).isdigit()}


def _is_held(folder: RunFolder, held: set[int] | None) -> bool | None:
    if held is None:
        return None
    try:
        return folder.lock_path.stat().st_ino in held
    except FileNotFoundError:
        return False
