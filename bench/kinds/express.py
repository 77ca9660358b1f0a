"""Express evaluations: few passes, an upper bound of robust accuracy, and how much is left."""

from __future__ import annotations

from bench.formatting import accuracy_text, percent
from bench.kinds.attacked import AttackedRecords, curve_results
from bench.store.kinds import Overview
from bench.store.summary import AttackedSummary, ExpressSummary


class ExpressRecords(AttackedRecords):
    """Short attacks where they break something; never ranked beside AutoAttack."""

    name = "express"
    maker = "bench.runs.express:Express"
    summary = ExpressSummary
    needs_record = True
    robust_label = "express"

    def overview(self, summary: AttackedSummary) -> Overview:
        """Return the accuracy as an upper bound, what is left to break, and a row an attack."""
        assert isinstance(summary, ExpressSummary)
        common = super().overview(summary)
        bounds = summary.confidence_intervals["robust_accuracy"]
        results = [("express (upper bound)", accuracy_text(summary.robust_accuracy, bounds))]
        if summary.escalated:
            text = f"{summary.escalated}; the protocol's own attacks followed"
            results.append(("escalated", text))
        elif summary.left is not None:
            left = summary.left
            results.append(
                (
                    "left to break",
                    f"{100 * left.expected:.2f} points expected, 95%: {100 * left.low:.2f} to "
                    f"{100 * left.high:.2f}",
                )
            )
        eight_bit = percent(summary.eight_bit_robust_accuracy)
        results.append(("8-bit", f"{eight_bit}% if witnesses are kept as 8-bit images"))
        results += curve_results(summary)
        return Overview(common.headline, results, common.columns, common.rows)
