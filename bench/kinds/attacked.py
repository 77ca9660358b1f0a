"""Runs that attacked, and runs of imported adversarial images: one set of columns."""

from __future__ import annotations

import pyarrow as pa

from bench.formatting import accuracy_text, duration, percent
from bench.store.kinds import Columns, Kind, Overview
from bench.store.records import AttackBlock
from bench.store.summary import AttackedSummary
from bench.store.tables import (
    ATTEMPT_COLUMNS,
    CONFIDENCE_COLUMNS,
    MIX_COLUMNS,
    OUTCOME_COLUMNS,
)


class AttackedRecords(Kind):
    """The records that an evaluation and imported witnesses have in common."""

    block = AttackBlock
    summary = AttackedSummary
    columns = Columns(
        samples=pa.schema(
            [
                *OUTCOME_COLUMNS,
                ("eight_bit_robust", pa.bool_()),
                *((name, pa.float64()) for name in (*MIX_COLUMNS, *CONFIDENCE_COLUMNS)),
            ]
        ),
        attempts=ATTEMPT_COLUMNS,
    )
    has_section = True
    has_witnesses = True

    def overview(self, summary: AttackedSummary) -> Overview:
        """Return the accuracies, and a row for each attack."""
        bounds = summary.confidence_intervals["robust_accuracy"]
        eight_bit = percent(summary.eight_bit_robust_accuracy)
        return Overview(
            headline=self.robust_label,
            results=[
                ("AutoAttack", f"{percent(summary.autoattack_accuracy)}%"),
                ("robust", accuracy_text(summary.robust_accuracy, bounds)),
                ("8-bit", f"{eight_bit}% if witnesses are kept as 8-bit images"),
                *curve_results(summary),
            ],
            columns=(
                "attack", "attempted", "broken", "accuracy after", "time", "forward", "gradients",
            ),
            rows=[
                (
                    attack.name,
                    f"{attack.attempted:,}",
                    f"{attack.broken:,}",
                    percent(attack.accuracy_after),
                    duration(attack.seconds),
                    f"{attack.forward_passes:,}",
                    f"{attack.backward_passes:,}",
                )
                for attack in summary.attacks
            ],
        )  # fmt: skip


def curve_results(summary: AttackedSummary) -> list[tuple[str, str]]:
    """Return what the smallest known perturbations say, as `Overview.results`."""
    curve = summary.eps_curve
    if curve is None:
        return []
    eps = summary.manifest.threat_model.eps
    shown = [point for point in curve.points if point[0] > 0][1::2]
    points = ", ".join(f"{percent(accuracy)} at {radius / eps:g}" for radius, accuracy in shown)
    median = curve.median_radius
    smallest = (
        "larger than any known" if median is None else f"{median:.5g} ({median / eps:.3g} eps)"
    )
    unknown = f"; none known for {curve.not_broken:,} samples" if curve.not_broken else ""
    return [("curve", f"{points} eps"), ("smallest", f"median perturbation {smallest}{unknown}")]


class EvaluationRecords(AttackedRecords):
    """Attacks, each on the samples that survived the earlier ones."""

    name = "evaluation"
    maker = "bench.runs.evaluation:Evaluation"
    is_ranked = True


class ImportedWitnessesRecords(AttackedRecords):
    """Adversarial images of others, tried once each."""

    name = "imported-witnesses"
    command = "bench import-witnesses"
    is_imported = True
