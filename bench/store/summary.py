"""Summaries of finished runs, derived from their tables; accuracies are fractions in [0, 1]."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from bench.statistics import Interval
from bench.store.kinds import Kind, kind_named
from bench.store.manifest import SCHEMA_VERSION, Manifest, Record
from bench.store.power import AttackPower


class Flag(Record):
    """A reason to doubt a number."""

    name: str
    measured: float | str
    threshold: float | str
    meaning: str
    advice: str


class AttackSummary(Record):
    """The result of one attack of the sequence."""

    name: str
    attempted: int
    broken: int
    accuracy_after: float
    seconds: float
    forward_passes: int
    backward_passes: int


class Convergence(Record):
    """The result of attacking on with doubled budgets."""

    shares_broken: list[float]
    """Share of the survivors that each doubling broke."""
    expected_share: float
    """Share of the survivors that another doubling would break, extrapolated."""
    converged: bool
    curve: list[tuple[float, float]]
    """Passes for each sample so far (a gradient counts as one), and the accuracy after them."""


class EpsCurve(Record):
    """Robust accuracy against eps, from each sample's smallest known perturbation.

    The exact steps are in the run's table of smallest perturbations.
    """

    points: list[tuple[float, float]]
    """Radii, in eighths of the threat model's from 0 to twice it, and the accuracy at each."""
    median_radius: float | None
    """Half of the samples are wrong at this radius, those that are wrong without attack among them;
    None: at no radius that is known."""
    not_broken: int
    """Samples of which no adversarial image is known at any radius."""


class Summary(Record):
    """The fields of every finished run; a kind of run may add its own."""

    schema_version: int = SCHEMA_VERSION
    manifest: Manifest
    run: str
    n_examples: int
    clean_accuracy: float
    robust_accuracy: float
    """Accuracy after every attack of the run; for a certification, certified accuracy at the threat
    model's radius."""
    confidence_intervals: dict[str, Interval]
    flags: list[Flag]
    flags_checked: Literal["basic", "full"] = "basic"
    """Which flags were measured: `full` includes those that need attacks of their own. They can be
    added to a finished run, whose numbers stay."""
    engine_record: dict[str, float | str] = {}
    """The engine's own figures, such as batch fill and the passes of the reference."""
    seconds: float
    """Time spent on blocks, added up over restarts."""
    started: str
    finished: str

    @property
    def kind(self) -> Kind:
        """The kind of the run."""
        return kind_named(self.manifest.kind)

    @property
    def is_variant(self) -> bool:
        """Whether something differs from the suite as defined; variants are not ranked."""
        return bool(self.manifest.overrides)


class AttackedSummary(Summary):
    """A run that attacked, or tried the adversarial images of others."""

    autoattack_accuracy: float | None
    """Accuracy after standard AutoAttack; None if another attack ran before its end."""
    eight_bit_robust_accuracy: float
    """Accuracy after every attack, if witnesses are rounded to 8-bit images."""
    attacks: list[AttackSummary]
    convergence: Convergence | None = None
    """Set for runs that attacked until convergence."""
    eps_curve: EpsCurve | None = None
    """Set for runs that looked for each sample's smallest perturbation."""
    attack_power: AttackPower | None = None
    """Which planted weaknesses the attacks found; set with `--flags full`."""


class Left(Record):
    """How much more passes would break, as shares of all samples, with a 95% interval."""

    expected: float
    low: float
    high: float


class ExpressSummary(AttackedSummary):
    """An express evaluation: short attacks, so that its robust accuracy is an upper bound."""

    left: Left | None = None
    """None where the protocol's own attacks followed."""
    escalated: str = ""
    """Why they followed; empty: they did not."""


def ranked(summaries: Iterable[Summary]) -> list[AttackedSummary]:
    """Return the runs that are ranked on leaderboards, beside published numbers."""
    return [each for each in summaries if isinstance(each, AttackedSummary) and each.kind.is_ranked]


class Certified(Record):
    """What a certification proved; accuracies are fractions in [0, 1]."""

    sigma: float
    average_certified_radius: float
    """Mean over all samples of the certified radius, which counts as 0 where the prediction is
    wrong."""
    accuracy_at_radius: dict[str, float]
    """Right with at least this radius, written with two decimals; of the papers' radii those that
    the draws settled."""
    abstained: float
    """Share of the samples for which the draws did not determine the class."""
    mean_noise_samples: float | None
    """Mean number of draws that bound a sample's class probability; None if a log does not say."""


class CertifiedSummary(Summary):
    """A certification or an imported log."""

    certified: Certified

    @property
    def radii_are_low(self) -> bool:
        """Whether draws stopped once some radii were settled, so that larger ones may be provable.

        The average certified radius is then a lower bound of what all draws would give.
        """
        return self.settled_radii is not None

    @property
    def settled_radii(self) -> tuple[float, ...] | None:
        """The radii that draws stopped for; None: all draws were made, which settle each radius."""
        settings = self.manifest.engine_settings
        if settings.get("procedure") != "sequential":
            return None
        return tuple(map(float, settings["radii"]))

    def is_low_at(self, radius: float) -> bool:
        """Return whether all draws might certify more samples at a radius."""
        return self.settled_radii is not None and radius not in self.settled_radii


class SweepPoint(Record):
    """A mix at one weight; accuracies are fractions in [0, 1]."""

    alpha: float
    clean_accuracy: float
    attacked_accuracy: float
    """Accuracy after the sweep's cheap attack: an upper bound."""


def best_point(points: Sequence[SweepPoint]) -> SweepPoint:
    """Return the weight at which a sweep's attacked accuracy is highest."""
    return max(points, key=lambda point: (point.attacked_accuracy, point.clean_accuracy))


class SweepSummary(Summary):
    """A sweep; its accuracies are those of `best_point`."""

    sweep: list[SweepPoint]
    """By ascending weight."""
