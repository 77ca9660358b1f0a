"""`bench status`: where a run stands."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from bench.cli import options
from bench.cli.tables import table_console, table_of
from bench.formatting import accuracy_text, count, duration, percent, rate
from bench.store import Store
from bench.store.activity import Activity, WorkerActivity
from bench.store.status import RunStatus, StatusWatch

SECONDS_BETWEEN_LOOKS = 2.0
SECONDS_BETWEEN_PRINTS = 10.0
"""Between two tables in a file or a log."""
MOST_WORKERS = 40
"""A table has no more of them, so that it fits a screen."""


@click.command("status")
@click.argument("reference", metavar="SUITE/CANDIDATE[@RUN]")
@options.results_dir
@click.option("--follow", is_flag=True, help="Refresh until the run ends.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON; with --follow an object a line.")
def command(reference: str, results_dir: Path, follow: bool, as_json: bool) -> None:
    """Show where a run stands: stages, robust so far, workers and their rates, time left.

    It reads the run's files and touches nothing, so that any process on any machine with the
    results folder can follow. Without @RUN, the candidate's run that was written to last.
    """
    watch = StatusWatch(Store(results_dir), reference)
    if as_json:
        for status in _looks(watch, follow, SECONDS_BETWEEN_LOOKS):
            click.echo(json.dumps(plain(status), indent=None if follow else 2))
        return
    console = table_console()
    if not (follow and console.is_interactive):
        for status in _looks(watch, follow, SECONDS_BETWEEN_PRINTS):
            console.print(_shown(status), soft_wrap=True)
        return
    with Live(console=console, auto_refresh=False) as live:
        for status in _looks(watch, follow, SECONDS_BETWEEN_LOOKS):
            live.update(_shown(status), refresh=True)


def _looks(watch: StatusWatch, follow: bool, seconds: float) -> Iterator[RunStatus]:
    """Yield where the run stands: once, or until it no longer runs."""
    while True:
        status = watch.look()
        yield status
        if not follow or status.state != "running":
            return
        time.sleep(seconds)


def plain(status: RunStatus) -> dict[str, Any]:
    """Return a status as plain data; fractions are in [0, 1], times in seconds."""
    found: dict[str, Any] = {"run": _name(status), "state": status.state}
    if (summary := status.summary) is not None:
        found |= {
            "examples": summary.n_examples,
            "clean_accuracy": summary.clean_accuracy,
            "robust_accuracy": summary.robust_accuracy,
        }
    if (run := status.unfinished) is not None:
        found |= {
            "examples": run.examples,
            "clean_accuracy": run.right / run.examples if run.examples else None,
            "robust_accuracy": run.standing / run.examples if run.examples else None,
            "stages": [asdict(stage) for stage in run.stages],
            "blocks": run.blocks,
        }
    found["quiet"] = status.quiet
    found["activity"] = None if status.activity is None else asdict(status.activity)
    return found


def _name(status: RunStatus) -> str:
    run = status.summary or status.unfinished
    assert run is not None
    manifest = run.manifest
    return f"{manifest.suite}/{manifest.candidate}@{manifest.run}"


def _shown(status: RunStatus) -> Group:
    parts: list[Text | Table] = [Text(f"{_name(status)}: {_state(status)}", style="bold")]
    parts.append(Text(_accuracies(status)))
    if status.unfinished is not None:
        table = table_of("stage", "done", "of")
        for stage in status.unfinished.stages:
            table.add_row(Text(stage.name), count(stage.done), count(stage.total))
        parts.append(table)
    activity = status.activity
    if activity is not None:
        if activity.workers and status.state == "running":
            parts.append(_workers(activity))
        parts += [Text(line) for line in _losses(activity)]
    if status.state in ("interrupted", "failed"):
        parts.append(Text("the same command that began it goes on with what is finished"))
    return Group(*parts)


def _state(status: RunStatus) -> str:
    activity = status.activity
    if status.state == "running" and activity is not None:
        place = f" on {activity.host}" if activity.host else ""
        text = f"running{place} for {duration(activity.seconds)}"
        if activity.seconds_left is not None:
            text += f", at most {duration(activity.seconds_left)} left"
        return text
    if status.state == "complete":
        return "complete"
    text = f"{status.state}, last written to {duration(status.quiet)} ago"
    reason = "" if activity is None else activity.reason
    return f"{text}: {reason}" if status.state == "failed" and reason else text


def _accuracies(status: RunStatus) -> str:
    if (summary := status.summary) is not None:
        bounds = summary.confidence_intervals["robust_accuracy"]
        return (
            f"clean {percent(summary.clean_accuracy)}%, "
            f"{summary.kind.overview(summary).headline} "
            f"{accuracy_text(summary.robust_accuracy, bounds)}, n = {count(summary.n_examples)}"
        )
    run = status.unfinished
    assert run is not None
    if not run.examples:
        return "no sample is finished yet"
    return (
        f"so far clean {percent(run.right / run.examples)}%; "
        f"{count(run.standing)} of {count(run.examples)} survive, "
        f"{percent(run.standing / run.examples)}%"
    )


def _workers(activity: Activity) -> Table:
    table = table_of("worker", "does", "for", "shards", "samples/s", "passes/s")
    workers = activity.workers
    for each in workers[:MOST_WORKERS]:
        does = f"{each.stage}, {count(each.samples)} samples" if each.stage else "waits"
        samples, passes = _rates(each, activity)
        row = (each.name, does, duration(each.seconds), count(each.shards), samples, passes)
        table.add_row(*map(Text, row))
    left_out = len(workers) - MOST_WORKERS
    if left_out > 0:
        table.add_row(f"and {left_out} more")
    if len(workers) > 1:
        busy = sum(each.stage != "" for each in workers)
        samples = rate(sum(each.samples_per_second or 0.0 for each in workers))
        passes = rate(sum(each.passes_per_second or 0.0 for each in workers))
        shards = count(sum(each.shards for each in workers))
        table.add_section()
        table.add_row("all", f"{busy} of {len(workers)} at work", "", shards, samples, passes)
    return table


def _rates(worker: WorkerActivity, activity: Activity) -> tuple[str, str]:
    rates = worker.samples_per_second, worker.passes_per_second
    if len(activity.workers) == 1 and activity.samples_per_second is not None:
        rates = activity.samples_per_second, activity.passes_per_second
    return rate(rates[0]), rate(rates[1])


def _losses(activity: Activity) -> list[str]:
    if not activity.workers_lost:
        return []
    lost = f"lost: {activity.workers_lost} workers, {activity.shards_lost} shards, done again"
    return [lost, *(f"  {text}" for text in activity.losses)]
