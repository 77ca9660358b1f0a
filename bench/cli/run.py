"""`bench run`: evaluate candidates under a suite."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any

import click

from bench.cli import options
from bench.cli.report import write_report
from bench.cli.stopping import stoppable
from bench.errors import InputError
from bench.executors.choice import executing, executor_choice
from bench.runs.devices import torch_device
from bench.runs.settings import Settings
from bench.store import Store
from bench.suites import load_suite


@click.command("run")
@options.suite(required=True)
@click.option(
    "--candidate",
    "names",
    multiple=True,
    help="A submission's name or folder, an installed package's candidate, robustbench:<model "
    "id>, timm:NAME, torchvision:NAME, hf:ORG/NAME, python:MODULE:FUNCTION, a model file, "
    "mix:accurate=A,robust=B,alpha=0.7, or a pattern; repeatable. Default: the protocol's.",
)
@options.architecture
@options.data_dir
@options.model_dir
@options.results_dir
@options.report_dir
@options.device
@options.executor
@options.of_settings()
@click.option("--dry-run", is_flag=True, help="Print the plan with estimated times, and end.")
@click.option(
    "--price-per-hour",
    type=options.FiniteRange(min=0),
    help="With --dry-run: what a worker costs an hour, in any currency.",
)
@options.trust_code
@stoppable()
def command(
    suite_name: str,
    names: tuple[str, ...],
    architecture: str | None,
    data_dir: Path | None,
    model_dir: Path | None,
    results_dir: Path,
    report_dir: Path,
    device: str,
    executor_text: str,
    workers: int | None,
    gpus_per_worker: float | None,
    dry_run: bool,
    price_per_hour: float | None,
    trust_code: bool,
    **given: Any,
) -> None:
    """Evaluate candidates under a suite and write the report.

    Interrupted runs are resumed by the same command; complete ones are shown.

    Exit codes: 2 wrong usage or input, nothing run; 1 an evaluation failed; 3 some candidates were
    unavailable; 0 all evaluated.
    """
    if price_per_hour is not None and not dry_run:
        raise InputError("--price-per-hour can only be used with --dry-run")
    from bench.candidates.named.model_files import with_architecture  # torch: slow to import
    from bench.candidates.registry import find_candidates
    from bench.cli.display import Display
    from bench.runs.kind import runnable_kind
    from bench.runs.many import check_each, check_writable, evaluate_each
    from bench.runs.planning import prospects
    from bench.runs.samples import Samples

    choice = executor_choice(executor_text, workers, gpus_per_worker)
    settings = Settings(suite=load_suite(suite_name), device=torch_device(device), **given)
    protocol = settings.protocol or settings.suite.default_protocol
    settings.check_for(
        runnable_kind(settings.suite.protocol(protocol).kind).supported_settings, protocol
    )
    wanted = with_architecture(names, architecture) or settings.suite.candidates_of(protocol)
    if not wanted:
        raise InputError(
            f"suite {settings.suite.name} ships no candidates for protocol {protocol}; name some "
            "by --candidate"
        )
    references = find_candidates(wanted, settings.suite, model_dir, trust_code)
    with Display() as display:
        if dry_run:
            with executing(choice) as executor:
                plan = prospects(references, settings, data_dir, choice, executor)
            display.plan(plan, price_per_hour)
            return
        check_writable(results_dir, "--results-dir")
        check_writable(report_dir, "--report-dir")
        store = Store(results_dir)
        samples = Samples(settings, data_dir)
        checked = check_each(references, settings, samples)
        with executing(choice) as executor:
            turns = evaluate_each(
                references, settings, samples, store, display.candidate, checked, executor
            )
            with contextlib.closing(turns):
                code = display.turns(turns)
    write_report(store, report_dir, settings.suite.name)
    sys.exit(code)
