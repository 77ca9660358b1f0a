"""`bench sweep`: mix two candidates at many weights."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any

import click

from bench.cli import options
from bench.cli.report import write_report
from bench.cli.stopping import stoppable
from bench.executors.choice import executing, executor_choice
from bench.runs.devices import torch_device
from bench.runs.settings import SWEEP_STEPS, SWEEP_TARGETS, Settings
from bench.store import Store
from bench.suites import load_suite

_SCALE = options.FiniteRange(min=0, min_open=True)


@click.command("sweep")
@options.suite(required=True)
@click.option("--accurate", required=True, help="The accurate base, named as for bench run.")
@click.option("--robust", required=True, help="The robust base.")
@click.option(
    "--alphas",
    default="0:1:0.05",
    show_default=True,
    help="Weights of the robust base: first:last:step, or numbers with commas.",
)
@click.option(
    "--full", help="Also run the full standard protocol at these weights, such as 0.5,0.7."
)
@click.option("--accurate-scale", type=_SCALE, help="Factor on the accurate base's logits.")
@click.option("--robust-scale", type=_SCALE, help="Factor on the robust base's logits.")
@click.option(
    "--steps",
    type=click.IntRange(min=1),
    default=SWEEP_STEPS,
    show_default=True,
    help="Steps of each search of the cheap attack.",
)
@click.option(
    "--targets",
    type=click.IntRange(min=1),
    default=SWEEP_TARGETS,
    show_default=True,
    help="Target classes of the cheap attack's targeted APGD.",
)
@options.data_dir
@options.model_dir
@options.results_dir
@options.report_dir
@options.device
@options.executor
@options.of_settings("n_examples", "batch_size", "precision", "seed", "eps", "again")
@options.trust_code
@stoppable()
def command(
    suite_name: str,
    accurate: str,
    robust: str,
    alphas: str,
    full: str | None,
    accurate_scale: float | None,
    robust_scale: float | None,
    steps: int,
    targets: int,
    data_dir: Path | None,
    model_dir: Path | None,
    results_dir: Path,
    report_dir: Path,
    device: str,
    executor_text: str,
    workers: int | None,
    gpus_per_worker: float | None,
    trust_code: bool,
    **given: Any,
) -> None:
    """Draw the trade-off curve of two candidates, mixed at many weights, and write the report.

    One pass through each base gives the clean accuracy at every weight. The attacked accuracy is
    measured by a cheap attack, which gives an upper bound; --full adds runs under the full
    protocol. Interrupted sweeps are resumed by the same command.

    Exit codes: as of bench run.
    """
    from bench.candidates.registry import find_candidates  # torch: slow to import
    from bench.cli.display import Display
    from bench.flags.failures import has_failures
    from bench.runs import sweep
    from bench.runs.many import check_writable, evaluate_each
    from bench.runs.samples import Samples
    from bench.runs.session import evaluate

    choice = executor_choice(executor_text, workers, gpus_per_worker)
    weights = sweep.read_alphas(alphas, "--alphas")
    full_weights = () if full is None else sweep.read_alphas(full, "--full")
    suite = load_suite(suite_name)
    protocol = suite.attacking_protocol if full_weights else sweep.PROTOCOL
    settings = Settings(suite=suite, device=torch_device(device), protocol=protocol, **given)

    def name(alpha: float | None = None) -> str:
        return sweep.mix_name(accurate, robust, alpha, accurate_scale, robust_scale)

    (reference,) = find_candidates([name(sweep.INSPECTED_ALPHA)], suite, model_dir, trust_code)
    mixes = [name(each) for each in full_weights]
    references = find_candidates(mixes, suite, model_dir, trust_code) if mixes else []
    with Display() as display:
        check_writable(results_dir, "--results-dir")
        check_writable(report_dir, "--report-dir")
        store = Store(results_dir)
        samples = Samples(settings, data_dir)
        observer = display.candidate(name())
        candidate = sweep.sweep_candidate(reference, name())
        swept = sweep.sweep_settings(settings, weights, steps, targets)
        with executing(choice) as executor:
            result = evaluate(
                candidate, samples.of(candidate), swept, store, observer, executor=executor
            )
            display.result(result)
            turns = evaluate_each(
                references, settings, samples, store, display.candidate, executor=executor
            )
            with contextlib.closing(turns):
                code = display.turns(turns)
    write_report(store, report_dir, suite.name)
    sys.exit(1 if has_failures(result.summary) else code)
