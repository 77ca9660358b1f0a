"""Certifications and imported logs: one set of columns."""

from __future__ import annotations

import math

from bench.certification.accuracy import linf_radius
from bench.data import image_shape
from bench.formatting import accuracy_text, percent, radius
from bench.store.kinds import Columns, Kind, Overview
from bench.store.manifest import Manifest
from bench.store.records import CertificationBlock
from bench.store.summary import CertifiedSummary
from bench.store.tables import ATTEMPT_COLUMNS, CERTIFICATE_COLUMNS


class CertifiedRecords(Kind):
    """The records that a certification and an imported log have in common."""

    block = CertificationBlock
    summary = CertifiedSummary
    columns = Columns(samples=CERTIFICATE_COLUMNS, attempts=ATTEMPT_COLUMNS)
    certifies = True
    clean_label = "right by votes"
    robust_label = "certified"
    has_section = True

    def overview(self, summary: CertifiedSummary) -> Overview:
        """Return the certified accuracies, and a row for each radius."""
        eps = radius(summary.manifest.threat_model.eps)
        average = average_radius_text(summary)
        bounds = summary.confidence_intervals["robust_accuracy"]
        robust = accuracy_text(summary.robust_accuracy, bounds)
        abstained = percent(summary.certified.abstained)
        return Overview(
            headline=f"ACR {average}, certified at L2 radius {eps}",
            results=[
                (self.robust_label, f"{robust} at L2 radius {eps}"),
                *_in_linf(summary.manifest),
                (
                    "ACR",
                    f"{average}, sigma {summary.certified.sigma:g}, abstained {abstained}%",
                ),
            ],
            columns=("L2 radius", "certified accuracy"),
            rows=[
                (at, percent(value)) for at, value in summary.certified.accuracy_at_radius.items()
            ],
        )


class CertificationRecords(CertifiedRecords):
    """Votes under noise, and the radii that they prove."""

    name = "certification"
    maker = "bench.runs.certification:Certification"


class ImportedLogRecords(CertifiedRecords):
    """A certification log that others published."""

    name = "imported-log"
    command = "bench import-certify-log"
    is_imported = True


def average_radius_text(summary: CertifiedSummary) -> str:
    """Return the ACR in text, marked where a fixed number of draws would prove more."""
    text = f"{summary.certified.average_certified_radius:.3f}"
    return f"at least {text}" if summary.radii_are_low else text


def _in_linf(manifest: Manifest) -> list[tuple[str, str]]:
    """Return what a certificate at the threat model's L2 radius proves in Linf."""
    shape = image_shape(manifest.dataset.name)
    if shape is None:
        return []
    eps = manifest.threat_model.eps
    return [
        (
            "in Linf",
            f"the same at radius {linf_radius(eps, shape):.4g}, the largest Linf ball in that L2 "
            f"ball: {radius(eps)}/sqrt({math.prod(shape)})",
        )
    ]
