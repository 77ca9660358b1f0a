"""`bench show`: one run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import click
from rich.table import Table
from rich.text import Text

from bench.best_known import BestKnown, best_known
from bench.certify.norms import linf_radius
from bench.claims import claims_at, find_claim
from bench.cli import options
from bench.cli.tables import table_console, table_of
from bench.data import image_shape
from bench.data.class_names import listed
from bench.errors import InputError
from bench.formatting import (
    duration,
    flag_text,
    interval,
    interval_kind,
    moment,
    percent,
    radius,
    selection,
    setting,
)
from bench.records import Certified, Manifest, Summary, SweepPoint, best_point
from bench.store import Store


@click.command("show")
@click.argument("reference", metavar="SUITE/CANDIDATE[@RUN]")
@options.results_dir
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def command(reference: str, results_dir: Path, as_json: bool) -> None:
    """Show one run: accuracies, intervals, attack by attack, flags, provenance.

    Without @RUN, the newest complete run of the candidate.
    """
    if "/" not in reference:
        raise InputError(f"expected SUITE/CANDIDATE[@RUN], got {reference!r}")
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
        console.print(Text(f"no reliability flag ({summary.flags_checked} ones were looked for)"))
    console.print(_provenance(summary))


def _head(summary: Summary, joined: BestKnown) -> list[str]:
    manifest = summary.manifest
    bounds = summary.confidence_intervals
    threat = manifest.threat_model
    lines = [
        f"{manifest.suite}/{manifest.candidate}@{summary.run}",
        f"{threat.norm}, eps {radius(threat.eps)}, samples: "
        f"{selection(manifest.selection, manifest.dataset.size, summary.n_examples)}",
        f"clean      {percent(summary.clean_accuracy)}% [{interval(bounds['clean_accuracy'])}]",
    ]
    robust = f"{percent(summary.robust_accuracy)}% [{interval(bounds['robust_accuracy'])}]"
    if summary.sweep is not None:
        best = best_point(summary.sweep)
        lines.append(f"attacked   {robust} at alpha {best.alpha:g}, the best one; an upper bound")
    elif summary.certified is None:
        lines += [f"AutoAttack {percent(summary.autoattack_accuracy)}%", f"robust     {robust}"]
    else:
        lines += [
            f"certified  {robust} at L2 radius {radius(threat.eps)}",
            *_in_linf(manifest),
            f"ACR        {summary.certified.average_certified_radius:.3f}, sigma "
            f"{summary.certified.sigma:g}, abstained {percent(summary.certified.abstained)}%",
        ]
    lines.append(f"intervals  95%, {interval_kind(bounds['robust_accuracy'])}")
    if summary.eight_bit_robust_accuracy is not None:
        lines.append(
            f"8-bit      {percent(summary.eight_bit_robust_accuracy)}% if witnesses are held as "
            "8-bit images"
        )
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


def _in_linf(manifest: Manifest) -> list[str]:
    """What a certificate at the threat model's radius, in L2, proves in Linf."""
    shape = image_shape(manifest.dataset.name)
    if shape is None:
        return []
    eps = manifest.threat_model.eps
    return [
        f"in Linf    the same at radius {linf_radius(eps, shape):.4g}, the largest Linf ball in "
        f"that L2 ball: {radius(eps)}/sqrt({math.prod(shape)})"
    ]


def _table(summary: Summary) -> Table:
    if summary.certified is not None:
        return _radii(summary.certified)
    return _attacks(summary) if summary.sweep is None else _weights(summary.sweep)


def _attacks(summary: Summary) -> Table:
    table = table_of(
        "attack", "attempted", "broken", "accuracy after", "time", "forward", "gradients"
    )
    for attack in summary.attacks:
        table.add_row(
            attack.name,
            f"{attack.attempted:,}",
            f"{attack.broken:,}",
            percent(attack.accuracy_after),
            duration(attack.seconds),
            f"{attack.forward_passes:,}",
            f"{attack.backward_passes:,}",
        )
    return table


def _weights(points: Sequence[SweepPoint]) -> Table:
    table = table_of("alpha", "clean accuracy", "after the cheap attack")
    for point in points:
        accuracies = (point.clean_accuracy, point.attacked_accuracy)
        table.add_row(f"{point.alpha:g}", *map(percent, accuracies))
    return table


def _radii(certified: Certified) -> Table:
    table = table_of("L2 radius", "certified accuracy")
    for radius_text, accuracy in certified.accuracy_at_radius.items():
        table.add_row(radius_text, percent(accuracy))
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
                *(f"{name} {setting(value)}" for name, value in manifest.engine_settings.items()),
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
