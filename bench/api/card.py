"""An evaluation as a card for notebooks: one piece of HTML that needs nothing else."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import jinja2

from bench.api.call import call_of
from bench.formatting import interval, percent, selection, threat_model
from bench.store.summary import AttackedSummary, CertifiedSummary, SweepSummary

if TYPE_CHECKING:
    from bench.api.evaluation import Evaluation

MOST_ROWS = 16


def card(evaluation: Evaluation) -> str:
    """Return the card; all texts are escaped."""
    summary = evaluation.summary
    manifest = summary.manifest
    bounds = summary.confidence_intervals
    return _template().render(
        evaluation=evaluation,
        summary=summary,
        manifest=manifest,
        threat=threat_model(manifest.threat_model),
        samples=selection(manifest.selection, manifest.dataset.size, summary.n_examples),
        clean=percent(summary.clean_accuracy),
        clean_interval=interval(bounds["clean_accuracy"]),
        robust=percent(summary.robust_accuracy),
        robust_interval=interval(bounds["robust_accuracy"]),
        rows=_rows(evaluation),
        command=evaluation.command or call_of(evaluation),
    )


def _rows(evaluation: Evaluation) -> list[dict[str, object]]:
    """Return a bar for each attack, certified radius or weight."""
    summary = evaluation.summary
    bars: list[tuple[str, float, str]] = []
    if isinstance(summary, AttackedSummary):
        bars = [("clean", summary.clean_accuracy, "")]
        bars += [
            (each.name, each.accuracy_after, f"broke {each.broken} of {each.attempted}")
            for each in summary.attacks
        ]
    elif isinstance(summary, CertifiedSummary):
        radii = summary.certified.accuracy_at_radius.items()
        bars = [(f"radius {at}", value, "") for at, value in radii]
    elif isinstance(summary, SweepSummary):
        bars = [
            (
                f"alpha {point.alpha:g}",
                point.attacked_accuracy,
                f"clean {percent(point.clean_accuracy)}%",
            )
            for point in summary.sweep
        ]
    step = -(-len(bars) // MOST_ROWS) or 1
    return [
        {
            "name": name,
            "width": f"{100 * value:.1f}",
            "accuracy": percent(value),
            "note": note,
        }
        for name, value, note in bars[::step]
    ]


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("bench.api", ""),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("card.html.jinja")
