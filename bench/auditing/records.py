"""What the candidate's process writes down, stage by stage; all that a report is made from.

The process runs foreign code, so its records are read as data and checked, and nothing else comes
from it.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from bench.store.power import AttackPower
from bench.store.summary import Flag

FILE = "audit-records.json"
ORDER_FILE = "audit-order.json"

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]


class Part(BaseModel):
    """The base of the parts of a record."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Isolation(Part):
    """How the process was kept apart from the rest of the machine."""

    network: bool
    """Whether the candidate's code could reach a network."""
    network_note: str
    memory_bytes: int | None
    """The most memory that it may have; None: no limit."""
    memory_note: str


class Loaded(Part):
    """The candidate as it was loaded, and what its structure asks for."""

    name: str
    population: Count
    """Images of the whole test set: those at 0, 1, ... of the data set."""
    weights_sha256: dict[str, str]
    definition_sha256: str
    unidentified: list[str]
    notes: list[str]
    architecture: str
    parameters: Count
    randomized: bool
    is_mix: bool
    has_surrogate: bool
    sigma: float | None
    capabilities: list[str]
    """Properties that attacks can use (`bench.runs.capabilities`)."""
    adaptive_attacks: list[str]
    """The attacks that need one of those properties."""
    declared: list[str]
    """Threat models that its author declares."""
    fingerprint_varies: bool
    """Whether two passes over the same images gave different logits."""
    fingerprint_problem: str = ""
    """The error that the candidate raised on the images of both passes; empty: none."""
    device: str
    seconds: float

    @property
    def may_vary(self) -> bool:
        """Whether one answer decides nothing, as far as is known."""
        return self.randomized or self.fingerprint_varies or bool(self.fingerprint_problem)


class Clean(Part):
    """Predictions without attack: of the whole test set, or of a random part."""

    population: Count
    indices: list[int]
    """In the order of the draw; ascending where all are there."""
    right: list[bool]
    margins: list[float]
    """How much the right class leads the next one; it predicts what survives."""
    failed: list[int] = []
    """Indices of images on which the candidate raised an error; they count as wrong."""
    seconds: float
    note: str
    """Why it is a part; empty: it is all."""

    @property
    def is_whole(self) -> bool:
        """Whether every test image was predicted."""
        return len(self.indices) == self.population


class GivenWitnesses(Part):
    """A file of adversarial images that came with the artefact."""

    file: str
    images: Count
    broken: list[int]
    """Indices of the samples that its images break, each confirmed."""
    error: str
    seconds: float


class GivenRun(Part):
    """A run that came with the artefact, and what its witnesses prove."""

    run: str
    protocol: str
    threat_model: str
    """Its own, which may be another than the suite's."""
    n_examples: Count
    claimed: Share
    confirmed: Share | None
    failures: Count
    first_failure: str
    error: str
    is_whole: bool
    """Whether it took all samples of the suite."""
    broken: list[int]
    """Indices of samples that its images break in the suite's ball, if they are confirmed."""
    outside: Count
    """Samples that it broke only by images outside that ball; they do not count."""
    seconds: float


class Rounds(Part):
    """What the express attacks did, in rounds of a random order."""

    run: str
    """SUITE/CANDIDATE@RUN in the audit's own records; empty: it is not finished."""
    sizes: list[int]
    indices: list[int]
    standing: list[bool]
    """Whether a sample is right and unbroken."""
    ended: str
    """Why no further round was made."""
    seconds: float
    left: Share | None = None
    left_high: Share | None = None
    """Share of the samples that more passes would break: expected, and bound of a 95% interval."""
    escalated: str = ""
    """Why the protocol's own attacks followed; empty: they did not."""
    attacks: list[AttackLine] = []
    flags: list[Flag] = []
    flags_checked: Literal["basic", "full"] = "basic"
    eight_bit: Share | None = None
    power: AttackPower | None = None
    """Which planted weaknesses these attacks find; None: not tried."""


class AttackLine(Part):
    """What one attack did."""

    name: str
    attempted: Count
    broken: Count
    passes: Count
    seconds: float
    need: str
    """The property of the candidate that it uses; empty: none."""
    parameters: dict[str, float | int | str | bool | None]


class Trouble(Part):
    """A stage that failed or was left out, and why."""

    stage: str
    reason: str
    is_failure: bool
    """Whether it was begun and failed; otherwise it was left out."""


class Records(Part):
    """All that the candidate's process said."""

    isolation: Isolation | None = None
    stage: str = "start"
    """The stage in which it is, or was when it ended."""
    loaded: Loaded | None = None
    clean: Clean | None = None
    witnesses: list[GivenWitnesses] = []
    runs: list[GivenRun] = []
    rounds: Rounds | None = None
    full_flags_seconds: float | None = None
    troubles: list[Trouble] = []
    finished: bool = False


class Order(Part):
    """What the candidate's process is asked to do."""

    candidate: str
    suite: str
    claims: dict[str, float]
    """Fractions by name."""
    budget_seconds: float
    level: float
    seed: int
    out: str
    witnesses: list[str] = []
    results: str | None = None
    data_dir: str | None = None
    model_dir: str | None = None
    device: str = "auto"
    memory_bytes: int | None = None
    architecture: str | None = None


Rounds.model_rebuild()
