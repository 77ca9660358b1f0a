"""Everything that decides a run's result, and where it was made."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from bench.store.kinds import kind_named
from bench.suites import ThreatModel
from bench.suites.suite import check_certifiable

SCHEMA_VERSION = 2


class Record(BaseModel):
    """The base of records kept as JSON: their fields are fixed and never change in place."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class DatasetRecord(Record):
    """A data set: name, digest of images, labels and order, and the size of the whole set."""

    name: str
    sha256: str
    size: int
    classes: tuple[str, ...] | None = None
    """Class names in the order of the network's outputs, for the user's own data. None for a data
    set known by name, whose classes are known."""

    @model_serializer(mode="wrap")
    def _without_absent(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Known classes are left out of the record and of the run's digest.
        return {name: value for name, value in handler(self).items() if value is not None}


class Selection(Record):
    """Which samples of the protocol are taken.

    They are `all`, the `first` n, `every` step-th, n drawn at `random`, or n `listed`.

    A random selection is drawn without replacement from `population` samples, all of the
    protocol's, keyed by `seed`. If `round` is set, it grows by `round` samples at a time, up to n,
    and may stop early: when the interval of the robust accuracy is at most `until_width` wide, when
    `budget_seconds` are spent, or when an audit has decided all `claims`.
    """

    kind: Literal["all", "first", "every", "random", "listed"]
    n: int
    step: int | None = None
    seed: int | None = None
    population: int | None = None
    round: int | None = None
    until_width: float | None = None
    """A fraction: 0.03 is three points."""
    budget_seconds: float | None = None
    claims: tuple[float, ...] | None = None
    """Robust accuracies, fractions, that an audit tests; see `bench.auditing.decision`."""

    @model_serializer(mode="wrap")
    def _without_absent(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Absent values are left out of the record and of the run's digest.
        return {name: value for name, value in handler(self).items() if value is not None}


class Manifest(Record):
    """Everything that decides a run's result, and where it was made."""

    schema_version: int = SCHEMA_VERSION
    kind: str
    """Name of the kind of run, see `bench.store.kinds`."""
    suite: str
    suite_version: int
    candidate: str
    dataset: DatasetRecord
    threat_model: ThreatModel
    protocol: str
    attacks: list[dict[str, Any]]
    engine: str
    engine_settings: dict[str, Any]
    """Settings that decide the result: for the reference engine its batch size."""
    precision: str
    seed: int
    selection: Selection
    overrides: dict[str, Any]
    """What differs from the suite as defined. If it is empty, the run is ranked; otherwise the run
    is a variant."""
    weights_sha256: dict[str, str]
    definition_sha256: str
    repetition: int = 0
    """Counts repeated runs: those made with --again, and those of candidates with equal digests but
    other answers (`bench.store.same_candidate`)."""
    suite_title: str = ""
    environment: dict[str, Any] = {}
    information: dict[str, Any] = {}
    """Architecture, paper, training of the candidate."""
    unidentified: list[str] | None = None
    """Parts of the candidate that could not be digested, each with its reason; None: not checked,
    as for an imported log."""
    fingerprint: list[str] | None = None
    """The candidate's logits on the probe images, one line for each image; None: they vary from
    pass to pass."""

    @model_validator(mode="after")
    def _certificates_are_in_l2(self) -> Manifest:
        if kind_named(self.kind).certifies:
            check_certifiable(self.threat_model, f"{self.kind} of {self.candidate}")
        return self

    @property
    def run(self) -> str:
        """The short digest of everything that decides the result: the run's name."""
        content = self.model_dump(
            mode="json",
            # These depend on the machine: logits are rounded differently from one to another.
            exclude={"suite_title", "environment", "information", "unidentified", "fingerprint"},
        )
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]
