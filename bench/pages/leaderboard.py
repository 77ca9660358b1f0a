"""Select and order the runs of a suite's page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from bench.claims import Claim, claims_at, claims_at_other_radii, find_claim
from bench.pages.pareto import pareto_front
from bench.statistics.intervals import Interval
from bench.store.best_known import BestKnown
from bench.store.manifest import Manifest
from bench.store.same_candidate import has_other_weights
from bench.store.selection import CHOICE_OF_SAMPLES, interval_of
from bench.store.summary import AttackedSummary, ExpressSummary, Summary, ranked
from bench.suites import Suite, ThreatModel


@dataclass(frozen=True)
class Entry:
    """An entry of the page: the newest run of a candidate, with its older runs.

    Attributes:
        rank: rank from 1, equal for equal best known accuracy; None: not ranked.
        on_front: whether no ranked candidate is better in clean and in robust accuracy.
        claim: the published numbers of this model under the run's threat model.
        distant_claim: the published numbers at another radius, which are not compared.
        standing: the place that it would take among the published models by robust accuracy; None
            for a variant, a flagged run, or a published model.
        older: earlier complete runs of the same candidate, newest first.
        best_known: the joined result of all runs of the candidate; None: not computed.
        group: letter of the entries that cannot be told apart from this one; empty: not computed.
    """

    summary: AttackedSummary
    rank: int | None = None
    on_front: bool = False
    claim: Claim | None = None
    distant_claim: Claim | None = None
    standing: int | None = None
    older: tuple[AttackedSummary, ...] = ()
    best_known: BestKnown | None = None
    group: str = ""

    @property
    def manifest(self) -> Manifest:
        """The run's manifest."""
        return self.summary.manifest

    @property
    def best_accuracy(self) -> float:
        """The lowest robust accuracy known: of this run, or of all runs of the candidate."""
        if self.best_known is None or not self.best_known.lowered:
            return self.summary.robust_accuracy
        return self.best_known.robust_accuracy

    @property
    def hidden(self) -> int:
        """How many of the older runs are of other weights, which have no row of their own."""
        return sum(has_other_weights(self.manifest, run.manifest) for run in self.older)

    @property
    def accuracies(self) -> list[Accuracy]:
        """Clean, AutoAttack and robust accuracy, each with the published number."""
        claim, summary = self.claim, self.summary
        return [
            Accuracy(
                "Clean",
                "clean_accuracy",
                summary.clean_accuracy,
                self.interval("clean_accuracy"),
                claim.clean_accuracy if claim else None,
            ),
            Accuracy(
                "AutoAttack",
                "autoattack_accuracy",
                summary.autoattack_accuracy,
                self.interval("autoattack_accuracy"),
                claim.autoattack_accuracy if claim else None,
            ),
            Accuracy(
                "Robust",
                "robust_accuracy",
                summary.robust_accuracy,
                self.interval("robust_accuracy"),
                claim.best_known_accuracy if claim else None,
            ),
        ]

    @property
    def additional_data(self) -> bool:
        """Whether the candidate or the claim says that data beyond the training set was used."""
        claims = [claim for claim in (self.claim, self.distant_claim) if claim is not None]
        own = self.manifest.information.get("additional_data") is True
        return own or any(claim.additional_data for claim in claims)

    def interval(self, name: str) -> Interval | None:
        """Return the 95% interval of one of the summary's accuracies; None if not measured."""
        recorded = self.summary.confidence_intervals.get(name)
        fraction: float | None = getattr(self.summary, name)
        if recorded is not None or fraction is None:
            return recorded
        n = self.summary.n_examples
        return interval_of(self.manifest.selection, round(fraction * n), n)


@dataclass(frozen=True)
class Accuracy:
    """A measured accuracy beside the published one; fractions in [0, 1]."""

    title: str
    key: str
    measured: float | None
    interval: Interval | None
    published: float | None

    @property
    def difference(self) -> float | None:
        """Measured minus published."""
        if self.measured is None or self.published is None:
            return None
        return self.measured - self.published


@dataclass(frozen=True)
class Leaderboard:
    """The runs and published numbers that a suite's page shows.

    Attributes:
        suite: the suite's name.
        definition: the suite as it ships; None: a user's own suite, known only by its runs.
        reference: the manifest of the newest ranked run, or else of the newest run.
        ranked: one entry for each candidate, best known robust accuracy first.
        variants: runs that differ from the suite as defined, newest first.
        outdated: full runs under another version of the suite, newest first.
        published: claims under the suite's threat model, best known accuracy first.
        published_elsewhere: claims at other radii, which are shown but not compared.
        notices: runs that could not be read, and why.
        others: runs of other kinds: certifications, imported logs and witnesses, sweeps.
        express: express runs under the suite's threat model, newest first.
    """

    suite: str
    definition: Suite | None
    reference: Manifest
    ranked: tuple[Entry, ...]
    variants: tuple[Entry, ...]
    outdated: tuple[Entry, ...]
    published: tuple[Claim, ...]
    published_elsewhere: tuple[Claim, ...]
    notices: tuple[str, ...] = ()
    others: tuple[Summary, ...] = ()
    express: tuple[Entry, ...] = ()

    @property
    def partial(self) -> list[Entry]:
        """The variants that differ from full runs in the number of images alone."""
        return [entry for entry in self.variants if self._is_part(entry)]

    @property
    def otherwise(self) -> list[Entry]:
        """The variants with other settings, and the runs under another version of the suite."""
        others = [entry for entry in self.variants if not self._is_part(entry)]
        return [*others, *self.outdated]

    def _is_part(self, entry: Entry) -> bool:
        manifest = entry.manifest
        return (
            manifest.overrides.keys() <= CHOICE_OF_SAMPLES
            and manifest.threat_model == self.threat_model
            and manifest.suite_version == self.reference.suite_version
        )

    @property
    def certified(self) -> int:
        """How many candidates have a certification."""
        return len({run.manifest.candidate for run in self.others if run.kind.certifies})

    @property
    def unsectioned(self) -> list[Summary]:
        """The runs of kinds for which the page has no section, newest first."""
        runs = [run for run in self.others if not run.kind.has_section]
        return sorted(runs, key=lambda run: run.finished, reverse=True)

    @property
    def threat_model(self) -> ThreatModel:
        """The suite's threat model."""
        return (self.definition or self.reference).threat_model

    @property
    def title(self) -> str:
        """The suite's title, or its name where it has none."""
        return self.reference.suite_title or self.suite

    @property
    def most_accurate(self) -> Entry | None:
        """The ranked entry with the best clean accuracy."""
        return max(self.ranked, key=lambda entry: entry.summary.clean_accuracy, default=None)

    @property
    def entries(self) -> list[Entry]:
        """Everything with details on the page."""
        return [*self.ranked, *self.variants, *self.outdated]

    @property
    def newest(self) -> str:
        """When the newest run on the page finished, in ISO 8601."""
        runs = [*(entry.summary for entry in self.entries), *self.others]
        return max((run.finished for run in runs), default="")

    @property
    def candidates(self) -> int:
        """How many candidates have a complete run of whatever kind."""
        runs = [*(entry.summary for entry in self.entries), *self.others]
        return len({run.manifest.candidate for run in runs})


def make_leaderboard(
    suite: str,
    summaries: Sequence[Summary],
    definition: Suite | None,
    notices: Sequence[str] = (),
    best_known: Mapping[str, BestKnown] = MappingProxyType({}),
) -> Leaderboard:
    """Sort a suite's complete runs into ranked ones, variants and outdated ones.

    Args:
        summaries: at least one summary, oldest first.
        definition: the suite as it ships; None: it is a user's own.
        best_known: best-known accuracies, by run.
    """
    runs = ranked(summaries)
    full = [run for run in runs if not run.is_variant]
    # Full runs are compared with each other only if the suite meant the same by "full": its
    # version, and the sample count and radius in case somebody edited it and forgot the version.
    current = [run for run in full if definition is None or _is_current(run, definition)]
    reference: Summary = [*(current or full or runs or summaries)][-1]
    comparable = [run for run in current if _meaning(run) == _meaning(reference)]
    names = {run.run for run in comparable}
    others = [run for run in full if run.run not in names]
    dataset = reference.manifest.dataset.name
    threat_model = (
        definition.threat_model if definition is not None else reference.manifest.threat_model
    )
    return Leaderboard(
        suite=suite,
        definition=definition,
        reference=reference.manifest,
        ranked=_rank(_newest_first(comparable, best_known)),
        variants=tuple(_newest_first([run for run in runs if run.is_variant], best_known)),
        outdated=tuple(_newest_first(others, best_known)),
        published=tuple(claims_at(dataset, threat_model)),
        published_elsewhere=tuple(claims_at_other_radii(dataset, threat_model)),
        notices=tuple(notices),
        others=tuple(run for run in summaries if not run.kind.is_ranked),
        express=tuple(
            _newest_first(
                [
                    run
                    for run in summaries
                    if isinstance(run, ExpressSummary) and run.manifest.threat_model == threat_model
                ],
                best_known,
            )
        ),
    )


def _is_current(run: AttackedSummary, definition: Suite) -> bool:
    return run.manifest.suite_version == definition.version


def _meaning(run: Summary) -> tuple[object, ...]:
    manifest = run.manifest
    return (manifest.suite_version, manifest.threat_model, run.n_examples)


def _newest_first(
    runs: Sequence[AttackedSummary], best_known: Mapping[str, BestKnown]
) -> list[Entry]:
    """Return one entry for each candidate and set of overrides, with the newest run first."""
    groups: dict[tuple[str, str, str], list[AttackedSummary]] = {}
    for run in reversed(runs):
        what = json.dumps(run.manifest.overrides, sort_keys=True)
        version = repr(_meaning(run))
        groups.setdefault((run.manifest.candidate, what, version), []).append(run)
    return [_entry(group, best_known.get(group[0].run)) for group in groups.values()]


def _entry(runs: Sequence[AttackedSummary], best_known: BestKnown | None) -> Entry:
    manifest = runs[0].manifest
    claim_id = manifest.information.get("claim")
    name = claim_id if isinstance(claim_id, str) else None
    published = claims_at(manifest.dataset.name, manifest.threat_model)
    claim = find_claim(published, name)
    elsewhere = claims_at_other_radii(manifest.dataset.name, manifest.threat_model)
    robust = runs[0].robust_accuracy
    return Entry(
        summary=runs[0],
        claim=claim,
        distant_claim=find_claim(elsewhere, name) if claim is None else None,
        standing=(
            1 + sum((other.best_known_accuracy or 0) > robust for other in published)
            if published and claim is None and not runs[0].is_variant and not runs[0].flags
            else None
        ),
        older=tuple(runs[1:]),
        best_known=best_known,
    )


def _rank(entries: Sequence[Entry]) -> tuple[Entry, ...]:
    ordered = sorted(
        entries,
        key=lambda entry: (
            -entry.best_accuracy,
            -entry.summary.clean_accuracy,
            entry.manifest.candidate,
        ),
    )
    front = set(
        pareto_front([(entry.summary.clean_accuracy, entry.best_accuracy) for entry in ordered])
    )
    ranked: list[Entry] = []
    for place, entry in enumerate(ordered):
        tied = ranked and ranked[-1].best_accuracy == entry.best_accuracy
        ranked.append(
            replace(entry, rank=ranked[-1].rank if tied else place + 1, on_front=place in front)
        )
    return tuple(ranked)
