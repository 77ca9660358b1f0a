"""A candidate's identity: what decides its answers, as digests that runs record and compare.

Two parts: the files that it was made from (a submission's folder, an entry point's package) and
what its code made of them (`object_digest` of its module). Both are needed: code may read files
elsewhere, and the same module may be wrapped by another one tomorrow. What can be digested by
neither is named; such a candidate is *not identified*, and its runs are joined with no others.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from bench.candidates.folder_digest import FolderDigest, folder_digest
from bench.candidates.object_digest import ObjectDigest, object_digest
from bench.candidates.weights import file_sha256

if TYPE_CHECKING:
    from bench.candidates.candidate import Candidate

ADVICE = (
    "It is run anew each time, never resumed nor joined with other runs. To have that, keep in the "
    "module and its folder only what can be read: tensors, arrays, plain data, functions, files"
)


@dataclass(frozen=True)
class State:
    """What a candidate's code made.

    Attributes:
        sha256: digest of its module and of what stands beside it.
        unidentified: what could not be digested, a line each.
    """

    sha256: str
    unidentified: tuple[str, ...]


def state_of(
    module: nn.Module,
    others: Mapping[str, object] | None = None,
    bases: Mapping[str, Candidate] | None = None,
    folder: Path | None = None,
) -> State:
    """Return the digest of a module as it is before its first pass.

    Args:
        module: in eval mode.
        others: what a run uses beside it, such as a surrogate.
        bases: of a mix; they have identities of their own, which stand for their modules.
        folder: of a submission.
    """
    known = [
        (base.module, digest([base.weights_sha256, base.definition_sha256]))
        for base in (bases or {}).values()
    ]
    found: ObjectDigest = object_digest(module, known, folder)
    if not others:
        return State(found.sha256, found.undigested)
    beside = object_digest(dict(others), [*known, (module, found.sha256)], folder)
    return State(
        digest([found.sha256, beside.sha256]),
        tuple(dict.fromkeys((*found.undigested, *beside.undigested))),
    )


def unidentified_of(bases: Mapping[str, Candidate]) -> tuple[str, ...]:
    """Return what of the bases could not be digested."""
    return tuple(f"{role}: {each}" for role, base in bases.items() for each in base.unidentified)


def package_digest(entry: EntryPoint) -> FolderDigest:
    """Return the digest of the files of the package that an entry point's function comes from.

    A package may be installed in place and changed without a new version, so that its version
    alone says too little.
    """
    name = entry.module
    top = name.partition(".")[0]
    spec = importlib.util.find_spec(top)
    if spec is not None and spec.origin is None and top != name:
        spec = importlib.util.find_spec(name)  # of a namespace that many packages share
    if spec is None:
        return FolderDigest("", (f"{name}: its files were not found",))
    folders = [Path(each) for each in spec.submodule_search_locations or ()]
    if not folders:
        files = [Path(spec.origin)] if spec.origin is not None else []
        return FolderDigest(digest([file_sha256(each) for each in files if each.is_file()]), ())
    found = [folder_digest(each) for each in folders]
    return FolderDigest(
        digest([each.sha256 for each in found]),
        tuple(line for each in found for line in each.unread),
    )


def digest(content: object) -> str:
    """Return the SHA-256 of plain data."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def in_short(unidentified: Iterable[str]) -> str:
    """Return why a candidate is not identified, in one line with what to do."""
    reasons = list(unidentified)
    more = f"; and {len(reasons) - 2} more" if len(reasons) > 2 else ""
    return f"not identified: {'; '.join(reasons[:2])}{more}. {ADVICE}"
