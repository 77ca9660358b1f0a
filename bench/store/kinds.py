"""Kinds of runs: what the store and its readers must know of each, and which there are.

A kind says which columns its tables have, which summary its runs have, and what its accuracies mean
beside those of other runs. Readers ask a kind for these properties; none of them compares names of
kinds. The kinds that come with the package are in `bench.kinds`; `register_kind` adds others.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from bench.errors import InputError

if TYPE_CHECKING:
    from bench.store.records import Block
    from bench.store.summary import Summary

BUILT_IN = "bench.kinds"
"""The module that registers the kinds that come with the package."""


@dataclass(frozen=True)
class Columns:
    """The columns of a kind's two tables."""

    samples: pa.Schema
    attempts: pa.Schema


@dataclass(frozen=True)
class Overview:
    """A run for people: what stands between the accuracies and the flags.

    Attributes:
        headline: what the robust accuracy of such a run is called.
        results: name and text of each result, such as ("AutoAttack", "64.17%").
        columns: headings of the table.
        rows: texts of the table.
    """

    headline: str
    results: Sequence[tuple[str, str]]
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


class Kind(ABC):
    """One kind of run, as readers know it.

    Attributes:
        name: as manifests record it.
        maker: module:class of the `bench.runs.kind.RunnableKind` that makes such runs, where it is
            another class, so that readers need not import it.
        block: what its engine hands over.
        summary: the type of its summary.
        columns: of its tables.
        is_ranked: its accuracies stand on the leaderboard, beside published ones.
        has_witnesses: a sample that it broke is broken for the candidate, whoever asks: there is an
            image that proves it.
        certifies: it proves radii instead of attacking.
        is_imported: others made it; it was read from a file.
        has_section: a suite's page has a section for such runs; others are listed by their
            overview.
    """

    name: str
    maker: str = ""
    block: type[Block]
    summary: type[Summary]
    columns: Columns
    is_ranked = False
    has_witnesses = False
    certifies = False
    is_imported = False
    has_section = False

    @abstractmethod
    def overview(self, summary: Any) -> Overview:
        """Return what `bench show` prints of a run of this kind."""


_kinds: dict[str, Kind] = {}


def register_kind(kind: Kind) -> None:
    """Make a kind of run known.

    Raises:
        InputError: another kind has its name.
    """
    known = _kinds.setdefault(kind.name, kind)
    if type(known) is not type(kind):
        raise InputError(
            f"expected a new name for a kind of run, got {kind.name!r}, which is taken"
        )


def kind_named(name: str) -> Kind:
    """Return the kind of run called `name`.

    Raises:
        InputError: there is none.
    """
    importlib.import_module(BUILT_IN)
    if name not in _kinds:
        raise InputError(
            f"expected a kind of run of {', '.join(sorted(_kinds))}; got {name!r}: import the "
            "module that registers it"
        )
    return _kinds[name]
