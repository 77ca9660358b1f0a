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
    """What `bench show` prints of a run between its accuracies and its flags.

    Attributes:
        headline: name of the robust accuracy in such a run.
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
        name: the name in manifests.
        maker: module:class of the `bench.runs.kind.RunnableKind` that makes such runs, if it is
            another class. Readers do not import it.
        command: the command that makes such runs, which also mends them.
        block: type of the blocks that its engine yields.
        summary: type of its summary.
        columns: the columns of its tables.
        needs_record: whether its summary says what the engine's record alone tells, so that its
            tables are not enough to make it again.
        is_ranked: whether its accuracies are on the leaderboard, beside published ones.
        has_witnesses: whether it keeps an adversarial image for each broken sample, so that the
            sample is broken in other runs of the candidate too.
        certifies: whether it proves radii instead of attacking.
        clean_label: what its accuracy without perturbation is called.
        robust_label: what its robust accuracy is called.
        is_imported: whether its results come from a file that others made.
        has_section: whether a suite's page has a section for such runs; other runs are listed by
            their overview.
    """

    name: str
    maker: str = ""
    command: str = "bench run"
    block: type[Block]
    summary: type[Summary]
    columns: Columns
    needs_record = False
    is_ranked = False
    has_witnesses = False
    certifies = False
    clean_label = "clean"
    robust_label = "robust"
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
