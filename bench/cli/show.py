"""`bench show`: one run."""

from __future__ import annotations

from pathlib import Path

import click
from rich.table import Table
from rich.text import Text

from bench.claims import claims_at, find_claim
from bench.cli import options
from bench.cli.tables import table_console, table_of
from bench.data.class_names import listed
from bench.formatting import (
    duration,
    flag_text,
    interval,
    interval_kind,
    moment,
    percent,
    power_rows,
    radius,
    selection,
    setting,
)
from bench.store import Store
from bench.store.best_known import BestKnown, best_known
from bench.store.summary import AttackedSummary, Summary


@click.command("show")
@click.argument("reference", metavar="SUITE/CANDIDATE[@RUN]")
@options.results_dir
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def command(reference: str, results_dir: Path, as_json: bool) -> None:
    """Show one run: accuracies, intervals, attack by attack, flags, provenance.

    Without @RUN, the newest complete run of the candidate.
    """
    store = Store(results_dir)
    summary = store.summary(reference)
    if as_json:
        click.echo(summary.model_dump_json(indent=2))
        return
    console = table_console()
    for text in _head(summary, best_known(store, summary)):
        console.print(Text(text), soft_wrap=True)
    console.print(_table(summary))
    for flag in summary.flags:
        console.print(
            Text(f"flag {flag_text(flag)}"),
            soft_wrap=True,
        )
    if not summary.flags:
        console.print(Text(f"no flags raised (checked: {summary.flags_checked})"))
    if isinstance(summary, AttackedSummary) and summary.attack_power is not None:
        power = summary.attack_power
        console.print(Text(f"attack power of {power.attacks}, on {power.samples} samples"))
        for name, text in power_rows(power):
            console.print(Text(f"  {name:<16} {text}"), soft_wrap=True)
    console.print(_provenance(summary))


def _head(summary: Summary, joined: BestKnown) -> list[str]:
    manifest = summary.manifest
    bounds = summary.confidence_intervals
    clean = f"{percent(summary.clean_accuracy)}% [{interval(bounds['clean_accuracy'])}]"
    threat = manifest.threat_model
    lines = [
        f"{manifest.suite}/{manifest.candidate}@{summary.run}",
        f"{threat.norm}, eps {radius(threat.eps)}, samples: "
        f"{selection(manifest.selection, manifest.dataset.size, summary.n_examples)}",
        f"{summary.kind.clean_label:<10} {clean}",
    ]
    results = summary.kind.overview(summary).results
    lines += [f"{name:<10} {text}" for name, text in results]
    lines.append(f"intervals  95%, {interval_kind(bounds['robust_accuracy'])}")
    if saved := summary.engine_record.get("passes_saved"):
        lines.append(f"witnesses  known ones, tried first, saved {saved:,} passes")
    if joined.lowered:
        lines.append(
            f"best known {percent(joined.robust_accuracy)}%: {joined.lowered} more samples fell "
            f"in other runs ({', '.join(joined.runs)})"
        )
    if summary.is_variant:
        changed = ", ".join(f"{key} = {value}" for key, value in manifest.overrides.items())
        lines.append(f"variant    {changed}: not ranked with full runs")
    claims = claims_at(manifest.dataset.name, threat)
    claim = find_claim(claims, manifest.information.get("claim"))
    if claim is not None:
        lines.append(
            f"published  clean {percent(claim.clean_accuracy)}%, AutoAttack "
            f"{percent(claim.autoattack_accuracy)}%, best known "
            f"{percent(claim.best_known_accuracy)}% ({claim.source})"
        )
    return lines


def _table(summary: Summary) -> Table:
    overview = summary.kind.overview(summary)
    table = table_of(*overview.columns)
    for row in overview.rows:
        table.add_row(*row)
    return table


def _provenance(summary: Summary) -> Table:
    manifest = summary.manifest
    environment = manifest.environment
    packages = environment.get("packages", {})
    notices = manifest.information.get("data_notices") or []
    rows = {
        "engine": ", ".join(
            [
                manifest.engine,
                # The manifest holds the parameters of attacks.
                *(
                    f"{name} {setting(value, by_name=True)}"
                    for name, value in manifest.engine_settings.items()
                ),
                manifest.precision,
            ]
        ),
        "seed": manifest.seed,
        "suite version": manifest.suite_version,
        "data": f"{manifest.dataset.name} sha256 {manifest.dataset.sha256[:16]}",
        **({"classes": listed(manifest.dataset.classes, 8)} if manifest.dataset.classes else {}),
        **({"data notices": "\n".join(notices)} if notices else {}),
        **{f"{base} sha256": digest for base, digest in manifest.weights_sha256.items()},
        **({"weights": "; ".join(notes)} if (notes := manifest.information.get("weights")) else {}),
        **(
            {"conversions": "\n".join(done)}
            if (done := manifest.information.get("conversions"))
            else {}
        ),
        "architecture": manifest.information.get("architecture"),
        "versions": ", ".join(f"{name} {version}" for name, version in packages.items()),
        "machine": f"{environment.get('processor')}, {environment.get('device')}",
        "time": f"{moment(summary.started)} to {moment(summary.finished)}, "
        f"work {duration(summary.seconds)}",
    }
    table = Table(show_header=False, box=None)
    for name, value in rows.items():
        table.add_row(name, Text(str(value)))
    return table
