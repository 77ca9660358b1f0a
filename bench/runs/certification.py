"""A certification: radii inside which a smoothed classifier's prediction cannot change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from bench.candidates import Candidate
from bench.candidates.mix import Mix
from bench.certification.accuracy import RADII, certified_counts, summarise
from bench.certification.smoothing import Smoothing
from bench.data import Dataset
from bench.engines import CertificationTask, Engine
from bench.engines.certification import CertificationEngine
from bench.errors import InputError
from bench.kinds.certified import CertificationRecords, CertifiedRecords
from bench.runs.estimate import Estimate, estimate_votes
from bench.runs.kind import MadeKind, RunnableKind, common_fields, task_of
from bench.runs.settings import Settings
from bench.store.manifest import Manifest
from bench.store.records import CertificationBlock
from bench.store.summary import CertifiedSummary, Flag
from bench.store.tables import (
    CERTIFICATE_COLUMNS,
    Tables,
    attempt_table,
    certificates_of,
    frame,
    nullable,
)
from bench.suites.suite import check_certifiable


class CertifyingKind(CertifiedRecords, MadeKind):
    """What a certification and an imported log have in common."""

    def join(self, blocks: Sequence[CertificationBlock]) -> Tables:  # type: ignore[override]
        """Return the tables: certificates by index, without attempts and witnesses."""
        samples = frame(block.certificates for block in blocks)
        samples = samples.sort_values("index", ignore_index=True)
        for name in ("certified_count", "noise_samples"):
            samples[name] = nullable(samples[name])
        return Tables(samples[CERTIFICATE_COLUMNS.names], attempt_table([]), None, self.columns)

    def summarise(
        self,
        manifest: Manifest,
        tables: Tables,
        raised: Sequence[Flag],
        record: Mapping[str, float | str],
        finished: str,
    ) -> CertifiedSummary:
        """Sum up the radii; the robust accuracy is what is certified at the suite's radius."""
        certificates = certificates_of(tables.samples)
        n = len(certificates.index)
        clean = int((certificates.prediction == certificates.label).sum())
        (proved,) = certified_counts(certificates, [manifest.threat_model.eps])
        return CertifiedSummary(
            **common_fields(manifest, n, clean, proved, raised, record, finished),
            seconds=float(record.get("seconds", 0.0)),
            certified=summarise(
                certificates,
                manifest.engine_settings["sigma"],
                manifest.engine_settings.get("radii", RADII),
            ),
        )


class Certification(CertificationRecords, CertifyingKind, RunnableKind):
    """Votes under noise, and the radii that they prove."""

    supported_settings = frozenset({"procedure", "noise_samples"})

    def engine(self, settings: Settings) -> Engine[CertificationTask]:
        """Return the certification engine with the procedure that is asked for."""
        return CertificationEngine(settings.procedure or "fixed", settings.precision or "float32")

    def check(self, candidate: Candidate, dataset: Dataset, settings: Settings) -> None:
        """Refuse a candidate that cannot be certified."""
        smoothing_of(candidate, settings)

    def task(
        self, candidate: Candidate, dataset: Dataset, settings: Settings, engine: Engine[Any]
    ) -> CertificationTask:
        """Return what votes, and the noise under which it does."""
        smoothing = smoothing_of(candidate, settings)
        assert candidate.voter is not None
        module = candidate.module
        return CertificationTask(
            **vars(task_of(candidate.voter, dataset, settings, engine)),
            smoothing=smoothing,
            mix=module.to(settings.device) if isinstance(module, Mix) else None,
        )

    def notices(self, task: CertificationTask, settings: Settings) -> list[str]:
        """Say where the suite's radius is beyond what so many draws can certify."""
        smoothing, eps = task.smoothing, task.threat_model.eps
        if task.mix is not None or smoothing.largest_radius >= eps:
            return []
        return [
            f"{smoothing.noise_samples:,} draws at sigma {smoothing.sigma:g} certify at most "
            f"{smoothing.largest_radius:.3f}, so nothing at the suite's radius {eps:g}; that takes "
            f"{smoothing.draws_for(eps):,} draws"
        ]

    def estimate(self, task: CertificationTask) -> Estimate:
        """Return how long all draws will take."""
        return estimate_votes(task)

    def averages(self, settings: Settings) -> bool:
        """Return True: votes are counted."""
        return True

    def overrides(self, task: CertificationTask, settings: Settings) -> dict[str, Any]:
        """Return another number of draws than the suite's."""
        usual = settings.chosen_protocol.certification
        given = task.smoothing.noise_samples
        return {} if usual is None or given == usual.noise_samples else {"noise_samples": given}


def smoothing_of(candidate: Candidate, settings: Settings) -> Smoothing:
    """Return the noise and the draws that the protocol asks for.

    Raises:
        InputError: the candidate is no smoothed classifier, or the norm is not that of the radii.
    """
    certification = settings.chosen_protocol.certification
    assert certification is not None
    check_certifiable(settings.suite.threat_model, f"suite {settings.suite.name}")
    if candidate.sigma is None or candidate.voter is None:
        raise InputError(
            f"candidate {candidate.name}: expected a smoothed classifier, or a mix of fixed weight "
            "whose robust base is one, since nothing else can be certified; got one without sigma. "
            "Wrap it by the architecture bench.candidates.smoothed:smoothed"
        )
    smoothing = Smoothing(candidate.sigma, **certification.model_dump())
    if settings.noise_samples is None:
        return smoothing
    return replace(smoothing, noise_samples=settings.noise_samples)
