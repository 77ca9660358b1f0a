"""`bench run`: evaluate candidates under a suite."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Literal

import click

from bench import data, runner
from bench.candidates import Candidate, CandidateReference
from bench.candidates.bases import MixReference
from bench.candidates.registry import find_candidates
from bench.candidates.submission import SubmissionReference
from bench.cli import options
from bench.cli.devices import torch_device
from bench.cli.display import Display
from bench.data import Dataset
from bench.engines import DEFAULT_ENGINE, ENGINES, make_engine
from bench.engines.acceleration import PRECISIONS
from bench.engines.certification import PROCEDURES, CertificationEngine
from bench.errors import BenchError, InputError, Unavailable
from bench.estimate import estimate
from bench.foreign_code import FOREIGN_ERRORS, raised
from bench.formatting import duration
from bench.memory import tensor_bytes
from bench.records import Flag
from bench.store import Store
from bench.suites import Suite, check_radius, load_suite
from bench.validation import parse_fraction


@click.command("run")
@options.suite(required=True)
@click.option(
    "--candidate",
    "names",
    multiple=True,
    help="A submission's name or folder, a third "
    "party's name, robustbench:<model id>, or a pattern; repeatable. Default: the protocol's.",
)
@click.option(
    "--n-examples", type=click.IntRange(min=1), help="Only N samples, the first (a variant)."
)
@click.option(
    "--sample",
    type=click.Choice(["first", "random"]),
    default="first",
    show_default=True,
    help="Which N: the first, or drawn at random without replacement.",
)
@click.option(
    "--sample-seed",
    type=click.IntRange(min=0),
    show_default="0",
    help="Of the draw of --sample random.",
)
@click.option(
    "--until-width",
    type=options.FiniteRange(min=0, max=100, min_open=True),
    help="With --sample random: stop when the robust accuracy's 95% interval is at most so many "
    "points wide.",
)
@click.option(
    "--budget", help="With --sample random: stop when this time is spent, such as 45s, 30m, 2h."
)
@options.data_dir
@options.model_dir
@options.results_dir
@options.report_dir
@options.device
@click.option(
    "--protocol",
    help="One of the suite's, usually standard, adaptive or certified. Default: its only one, or "
    "adaptive for mixes, else standard.",
)
@click.option(
    "--engine",
    type=click.Choice(ENGINES),
    show_default=DEFAULT_ENGINE,
    help="Of protocols that attack.",
)
@click.option(
    "--procedure",
    type=click.Choice(PROCEDURES),
    show_default="fixed",
    help="Of the protocol certified: all draws, or only as many as settle the question.",
)
@click.option(
    "--noise-samples",
    type=click.IntRange(min=1),
    help="Of the protocol certified: at most N draws a sample (a variant).",
)
@click.option(
    "--every",
    type=click.IntRange(min=1),
    default=1,
    help="Only the first sample and every K-th after it, of the first N of --n-examples (a "
    "variant).",
)
@options.engine_batch_size
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    help="Of the fast engine's search, whose successes are confirmed in float32 (default: the "
    "device's fastest that is as strong as float32); of a certification: the classifier in this "
    "precision is certified (default: float32).",
)
@options.seed
@options.eps
@click.option(
    "--seed-witnesses",
    is_flag=True,
    help="Try the adversarial images of the suite's earlier runs before any attack.",
)
@click.option(
    "--until-converged",
    is_flag=True,
    help="Attack what survives with ever larger budgets, until they change next to nothing.",
)
@click.option(
    "--flags",
    type=click.Choice(["basic", "full"]),
    default="basic",
    show_default=True,
    help="Which reliability flags: full adds those that need attacks of their own on a few dozen "
    "samples, also to a run that is complete.",
)
@click.option("--again", is_flag=True, help="Make a new run although a complete one is there.")
@click.option(
    "--allow-clean-mismatch",
    is_flag=True,
    help="Attack although the clean accuracy contradicts the published one.",
)
@click.option("--dry-run", is_flag=True, help="Print the plan with an estimate of the time.")
@options.trust_code
def command(
    suite_name: str,
    names: tuple[str, ...],
    n_examples: int | None,
    sample: Literal["first", "random"],
    sample_seed: int | None,
    until_width: float | None,
    budget: str | None,
    data_dir: Path | None,
    model_dir: Path | None,
    results_dir: Path,
    report_dir: Path,
    device: str,
    protocol: str | None,
    engine: str | None,
    procedure: str | None,
    noise_samples: int | None,
    every: int,
    batch_size: int | None,
    precision: str | None,
    seed: int,
    eps: str | None,
    seed_witnesses: bool,
    until_converged: bool,
    flags: Literal["basic", "full"],
    again: bool,
    allow_clean_mismatch: bool,
    dry_run: bool,
    trust_code: bool,
) -> None:
    """Evaluate candidates under a suite and write the report.

    Interrupted runs are resumed by the same command; complete ones are shown.

    Exit codes: 2 wrong usage or input, nothing run; 1 an evaluation failed; 3 some candidates were
    unavailable; 0 all evaluated.
    """
    suite = load_suite(suite_name)
    named = protocol or suite.default_protocol
    certifies = suite.protocol(named).certification is not None
    _check_protocol_options(named, certifies, engine, procedure, noise_samples)
    if (seed_witnesses or until_converged) and (certifies or engine == "reference"):
        option = "--seed-witnesses" if seed_witnesses else "--until-converged"
        raise InputError(f"{option}: expected an attacking protocol and the fast engine")
    if sample_seed is not None and sample == "first":
        raise InputError("--sample-seed: expected nothing without --sample random")
    if flags == "full" and certifies:
        raise InputError("--flags full: expected an attacking protocol, this one certifies")
    chosen_device = torch_device(device)
    settings = runner.Settings(
        suite=suite,
        engine=(
            CertificationEngine(procedure or "fixed", precision or "float32")
            if certifies
            else make_engine(engine or DEFAULT_ENGINE, precision, chosen_device)
        ),
        protocol=named,
        seed=seed,
        batch_size=batch_size,
        device=chosen_device,
        n_examples=n_examples,
        every=every,
        sample=sample,
        sample_seed=sample_seed or 0,
        until_width=None if until_width is None else until_width / 100,
        budget_seconds=None if budget is None else _seconds(budget),
        noise_samples=noise_samples,
        eps=None if eps is None else read_radius(eps, suite),
        again=again,
        seed_witnesses=seed_witnesses,
        until_converged=until_converged,
        allow_clean_mismatch=allow_clean_mismatch,
        flags=flags,
    )
    wanted = names or suite.candidates_of(named)
    if not wanted:
        raise InputError(
            f"suite {suite.name} ships no candidates for protocol {named}; name some by --candidate"
        )
    references = find_candidates(wanted, suite, model_dir, trust_code)
    with Display() as display:
        if dry_run:
            display.plan(_plan(references, settings, protocol, data_dir))
            return
        check_writable(results_dir, "--results-dir")
        check_writable(report_dir, "--report-dir")
        store = Store(results_dir)
        samples = Samples(settings, data_dir)
        checked = check_submissions(references, settings, protocol, samples)
        worst = evaluate_all(references, settings, protocol, samples, store, display, checked)
    if any(run.is_complete for run in store.runs(suite.name)):
        from bench.report import build_report, page_name  # matplotlib: slow to import

        build_report(store, report_dir, [suite.name])
        click.echo(f"report: {(report_dir / page_name(suite.name)).resolve()}")
    sys.exit(worst)


Checked = tuple[Candidate, list[Flag]]
"""A candidate that is loaded, and the flags that a first look at it raised."""

MOST_BYTES_HELD = 2 << 30
"""In loaded candidates that wait for their turn; others are loaded once more."""


class Samples:
    """The suite's samples, loaded once unless each model preprocesses them in its own way."""

    def __init__(self, settings: runner.Settings, data_dir: Path | None) -> None:
        self.settings = settings
        self.data_dir = data_dir
        self._shared: Dataset | None = None

    def of(self, candidate: Candidate) -> Dataset:
        """The samples as a candidate takes them."""
        if candidate.preprocessing is not None:
            return self._load(candidate)
        if self._shared is None:
            self._shared = self._load(candidate)
        return self._shared

    def _load(self, candidate: Candidate) -> Dataset:
        return data.load_source(
            self.settings.suite.data,
            self.data_dir,
            preprocessing=candidate.preprocessing,
            choose=lambda size: runner.selected_rows(self.settings, size),
        )


def evaluate_all(
    references: list[CandidateReference],
    settings: runner.Settings,
    protocol: str | None,
    samples: Samples,
    store: Store,
    display: Display,
    checked: dict[str, Checked] | None = None,
) -> int:
    """Evaluate one candidate after the other; returns the exit code.

    Args:
        checked: candidates that are loaded already, by name; each is let go in its turn.
    """
    failed: list[str] = []
    unavailable: list[str] = []
    ready = {} if checked is None else checked
    for reference in references:
        display.candidate(reference.name)
        try:
            candidate, flags = ready.pop(reference.name, None) or (reference.load(), None)
            own = _settings_of(candidate, settings, protocol)
            dataset = samples.of(candidate)
            outcome = runner.evaluate(candidate, dataset, own, store, display, flags)
        except Unavailable as error:
            unavailable.append(reference.name)
            display.failure(reference.name, f"unavailable: {error}")
        except BenchError as error:
            if len(references) == 1:
                raise
            failed.append(reference.name)
            display.failure(reference.name, str(error))
        except FOREIGN_ERRORS as error:
            failed.append(reference.name)
            display.failure(reference.name, f"failed: {raised(error)}")
        else:
            display.outcome(outcome)
    return 1 if failed else 3 if unavailable else 0


def _settings_of(
    candidate: Candidate, settings: runner.Settings, protocol: str | None
) -> runner.Settings:
    """The settings for a candidate: its own protocol where the user named none."""
    chosen = protocol or runner.default_protocol(candidate, settings.suite)
    return replace(settings, protocol=chosen)


def check_submissions(
    references: list[CandidateReference],
    settings: runner.Settings,
    protocol: str | None,
    samples: Samples,
) -> dict[str, Checked]:
    """Load and try what is on this disk, so that wrong input is found before anything runs.

    Returns:
        the candidates by name, with the flags that they raised, as far as memory should hold them.
    """
    checked: dict[str, Checked] = {}
    held = 0
    for reference in references:
        is_ours = isinstance(reference, SubmissionReference | MixReference)
        if is_ours and reference.availability().here:
            candidate = reference.load()
            own = _settings_of(candidate, settings, protocol)
            runner.smoothing_of(candidate, own)
            try:
                flags = runner.inspect(candidate, samples.of(candidate), own)
            except BenchError:
                raise
            except FOREIGN_ERRORS as error:
                raise InputError(f"candidate {reference.name}: {raised(error)}") from error
            candidate.module.cpu()  # it waits for its turn, and another may need the device
            held += tensor_bytes(candidate.module)
            if held <= MOST_BYTES_HELD or not checked:
                checked[reference.name] = candidate, flags
    return checked


def _plan(
    references: list[CandidateReference],
    settings: runner.Settings,
    protocol: str | None,
    data_dir: Path | None,
) -> list[tuple[str, str, str]]:
    """Rows of candidate, what is missing, and time."""
    absent = data.missing(settings.suite.data, data_dir)
    samples = Samples(settings, data_dir)
    rows = []
    for reference in references:
        availability = reference.availability()
        missing = [note for note in (absent, availability.note) if note]
        time = "unknown until it is here"
        if availability.here and absent is None:
            candidate = reference.load()
            own = _settings_of(candidate, settings, protocol)
            task = runner.make_task(candidate, samples.of(candidate), own)
            bounds = estimate(task)
            time = f"{duration(bounds.low)} to {duration(bounds.high)}"
        rows.append((reference.name, "; ".join(missing) or "all here", time))
    return rows


def _check_protocol_options(
    protocol: str,
    certifies: bool,
    engine: str | None,
    procedure: str | None,
    noise_samples: int | None,
) -> None:
    """Refuse options that the protocol would not heed."""
    unheeded = {"--procedure": procedure, "--noise-samples": noise_samples}
    if certifies:
        unheeded = {"--engine": engine}
    for option, value in unheeded.items():
        if value is not None:
            what = "certifies" if certifies else "attacks"
            raise InputError(f"{option}: expected nothing, protocol {protocol} {what}; got {value}")


def read_radius(text: str, suite: Suite) -> float:
    """The radius that --eps gives, in the [0, 1] pixel scale.

    Raises:
        InputError: no number > 0, or a ball that holds every image.
    """
    value = parse_fraction(text)
    if not isinstance(value, float) or not 0 < value < float("inf"):
        raise InputError(f"--eps: expected a number > 0 such as 0.03 or 8/255, got {text!r}")
    if suite.threat_model.norm == "Linf" and value > 1:
        raise InputError(
            f"--eps: expected at most 1, since pixels are in [0, 1]; got {text!r}: did you mean "
            f"{value:g}/255?"
        )
    threat_model = suite.threat_model.model_copy(update={"eps": value})
    check_radius(threat_model, suite.data, "--eps")
    return value


def _seconds(text: str) -> float:
    units = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
    number, unit = parse_fraction(text[:-1]), text[-1:]
    if not isinstance(number, float) or not 0 < number < float("inf") or unit not in units:
        raise InputError(f"--budget: expected a time such as 45s, 30m or 2h, got {text!r}")
    return number * units[unit]


def check_writable(folder: Path, option: str) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK | os.X_OK)
    except OSError as error:
        raise InputError(f"{option}: {folder} cannot be made: {error.strerror}") from error
    if not writable:
        raise InputError(f"{option}: {folder} cannot be written")
