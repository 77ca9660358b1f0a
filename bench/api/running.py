"""Evaluate and certify models: the runs of `bench run`, called from Python."""

from __future__ import annotations

import os
import shlex
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import torch

from bench.api.conditions import usual_torch
from bench.api.evaluation import Evaluation
from bench.api.models import (
    Classes,
    Images,
    Model,
    UsualSuite,
    device_of,
    folder_of_models,
    modules_of,
    reference_of,
    suite_of_call,
    width_of,
)
from bench.api.origin import Origin
from bench.api.progress import listener
from bench.api.smoothed_reference import SmoothedReference
from bench.api.wording import errors_in_python
from bench.candidates import Candidate, CandidateReference
from bench.candidates.identity import in_short
from bench.candidates.live import LiveReference, borrowed
from bench.data.class_names import numbered
from bench.data.in_hand import DataInHand
from bench.errors import InputError
from bench.runs import session
from bench.runs.kind import runnable_kind
from bench.runs.many import check_writable
from bench.runs.samples import Samples
from bench.runs.settings import Settings, option_name
from bench.store import Store
from bench.suites import Suite, ThreatModel

DEFAULT_RESULTS = "results"
Folder = str | os.PathLike[str]


def evaluate(
    model: Model,
    suite: str | os.PathLike[str] | Suite = UsualSuite("cifar10-linf"),
    *,
    name: str | None = None,
    images: Images | None = None,
    labels: Images | None = None,
    threat_model: ThreatModel | None = None,
    classes: Classes | None = None,
    randomized: bool = False,
    protocol: str | None = None,
    n_examples: int | None = None,
    sample: Literal["first", "random"] = "first",
    sample_seed: int | None = None,
    until_width: float | None = None,
    budget: str | float | None = None,
    every: int = 1,
    engine: str | None = None,
    procedure: str | None = None,
    noise_samples: int | None = None,
    batch_size: int | None = None,
    precision: str | None = None,
    seed: int = 0,
    eps: str | float | None = None,
    seed_witnesses: bool = False,
    until_converged: bool = False,
    eps_curve: bool = False,
    flags: Literal["basic", "full"] = "basic",
    again: bool = False,
    allow_clean_mismatch: bool = False,
    device: str | torch.device = "auto",
    results_dir: Folder | None = None,
    data_dir: Folder | None = None,
    model_dir: Folder | None = None,
    trust_code: bool = False,
    progress: bool = True,
) -> Evaluation:
    """Evaluate a model under a suite, or on images in hand; finish or show a run that is there.

    It is the run that `bench run` makes, with the same records in the same place: each goes on with
    what the other began, also after an interruption. A live model is evaluated in eval mode, and
    keeps its modes, its device and its hooks.

    Args:
        model: a module or another callable from images (N, C, H, W) in [0, 1] to logits (N, K), a
            submission's name or folder, or a name such as `robustbench:<model id>`.
        suite: a name, the path of a suite's file, or a suite; `cifar10-linf` where neither a suite
            nor images are given.
        name: of the candidate in the records; None: its own, or that of the model's class.
        images: in place of a suite: (N, C, H, W) in [0, 1], or integers from 0 to 255.
        labels: beside `images`: (N,) whole numbers in [0, K).
        threat_model: beside `images`: such as `bench.Linf(8 / 255)`.
        classes: beside `images`: the names in the order of the logits, or how many there are; None:
            as many as the model has logits.
        randomized: whether a live model's answers are random on purpose.
        protocol: `standard`, `adaptive`, `express` or `certified`; None: `adaptive` for mixes, else
            `standard`.
        n_examples: only so many samples.
        sample: which: the `first`, or drawn at `random`.
        sample_seed: of the draw of random samples.
        until_width: with random samples: stop at an interval of so many points.
        budget: with random samples: stop after this time, in seconds or such as "30m".
        every: only every so many-th sample.
        engine: `fast`, the default, or `reference`.
        procedure, noise_samples: of the protocol `certified`.
        batch_size: images in one pass; None: chosen by the engine.
        precision: of the fast engine's search.
        seed: of all draws but that of the samples.
        eps: another radius than the suite's.
        seed_witnesses: try adversarial images of the suite's earlier runs first.
        until_converged: attack on with ever larger budgets.
        eps_curve: look for each sample's smallest perturbation, for `Evaluation.eps_curve`.
        flags: which reliability flags are measured.
        again: make a new run although a complete one is there.
        allow_clean_mismatch: attack although the clean accuracy contradicts the published one.
        device: `auto`, `cpu`, `cuda` or a device of torch.
        results_dir: folder of the records; None: `results`.
        data_dir: folder of the data sets; None: BENCH_DATA_DIR, or the user's cache.
        model_dir: folder for downloaded weights; None: BENCH_MODEL_DIR, or the user's cache.
        trust_code: allow submissions that are not named by their path to run their own code.
        progress: show how far it is, on a terminal or in a notebook.

    Raises:
        InputError: wrong usage or input; nothing was run.
        Unavailable: something could not be downloaded.
        EvaluationError: the evaluation started and failed.
    """
    arguments = locals()
    given = {each.name: arguments[each.name] for each in fields(Settings) if _is_option(each)}
    with errors_in_python(), usual_torch():
        found, is_in_hand = suite_of_call(suite, images, labels, threat_model, classes)
        reference = reference_of(
            model, found, name, model_dir=model_dir, trust_code=trust_code, randomized=randomized
        )
        settings = Settings(suite=found, device=device_of(device, reference), **given)
        check_settings(settings)
        place = Place.of(results_dir, data_dir, model_dir, trust_code)
        command = command_line(model, suite, settings, place, name) if not is_in_hand else ""
        return run(reference, settings, place, progress, command, is_in_hand and classes is None)


def certify(
    model: Model,
    suite: str | os.PathLike[str] | Suite = UsualSuite("cifar10-l2"),
    *,
    sigma: float | None = None,
    name: str | None = None,
    images: Images | None = None,
    labels: Images | None = None,
    threat_model: ThreatModel | None = None,
    classes: Classes | None = None,
    n_examples: int | None = None,
    every: int = 1,
    procedure: str | None = None,
    noise_samples: int | None = None,
    batch_size: int | None = None,
    precision: str | None = None,
    seed: int = 0,
    eps: str | float | None = None,
    again: bool = False,
    device: str | torch.device = "auto",
    results_dir: Folder | None = None,
    data_dir: Folder | None = None,
    model_dir: Folder | None = None,
    trust_code: bool = False,
    progress: bool = True,
) -> Evaluation:
    """Certify a smoothed classifier, by votes under Gaussian noise (Cohen et al. 2019).

    With probability at least 1 - 0.001 a sample that is certified at a radius keeps its predicted
    class in the L2 ball of that radius. Other arguments, and errors, are those of `evaluate`.

    Args:
        model: what votes under the noise: a module or another callable from images (N, C, H, W) to
            logits (N, K). Or the name or folder of a smoothed classifier, without `sigma`.
        suite: with a protocol that certifies; `cifar10-l2` where neither a suite nor images are
            given.
        sigma: standard deviation of the noise, in the [0, 1] pixel scale, such as 0.25.
        procedure: `fixed`, the default, or `sequential`, which stops when the question is settled.
        noise_samples: at most so many draws a sample.

    Raises:
        InputError: also a live model without sigma, or a name with one.
    """
    options: dict[str, Any] = {
        "n_examples": n_examples,
        "every": every,
        "procedure": procedure,
        "noise_samples": noise_samples,
        "batch_size": batch_size,
        "precision": precision,
        "seed": seed,
        "eps": eps,
        "again": again,
    }
    with errors_in_python(), usual_torch():
        found, is_in_hand = suite_of_call(suite, images, labels, threat_model, classes)
        base = reference_of(model, found, name, model_dir=model_dir, trust_code=trust_code)
        reference = _smoothed(base, sigma)
        settings = Settings(
            suite=found,
            device=device_of(device, reference),
            protocol=found.certifying_protocol,
            **options,
        )
        check_settings(settings)
        place = Place.of(results_dir, data_dir, model_dir, trust_code)
        command = command_line(model, suite, settings, place, name) if not is_in_hand else ""
        return run(reference, settings, place, progress, command, is_in_hand and classes is None)


def _smoothed(reference: CandidateReference, sigma: float | None) -> CandidateReference:
    """Return a live model under noise; a model known by name is a smoothed classifier itself.

    Raises:
        InputError: a live model without sigma, or a name with one.
    """
    if isinstance(reference, LiveReference):
        if sigma is None:
            raise InputError(
                "sigma: expected the standard deviation of the noise beside a model in Python, "
                "such as 0.25; got None"
            )
        return SmoothedReference(reference, sigma)
    if sigma is not None:
        raise InputError(
            f"sigma: expected None beside {reference.name}, which says it itself; got {sigma}"
        )
    return reference


@dataclass(frozen=True)
class Place:
    """Where files are: records, data, weights; and whether submissions' code may run."""

    results_dir: Path
    data_dir: Path | None
    model_dir: Path | None
    trust_code: bool

    @classmethod
    def of(
        cls,
        results_dir: Folder | None,
        data_dir: Folder | None,
        model_dir: Folder | None = None,
        trust_code: bool = False,
    ) -> Place:
        """Return the folders that are given, or the usual ones."""
        return cls(
            Path(results_dir or DEFAULT_RESULTS),
            None if data_dir is None else Path(data_dir),
            folder_of_models(model_dir),
            trust_code,
        )


def check_settings(settings: Settings) -> None:
    """Refuse settings before anything is loaded, as `bench run` does.

    Raises:
        InputError: which one, and why.
    """
    settings.check_values()
    protocol = settings.protocol or settings.suite.default_protocol
    supported = runnable_kind(settings.suite.protocol(protocol).kind).supported_settings
    settings.check_for(supported, protocol)


def run(
    reference: CandidateReference,
    settings: Settings,
    place: Place,
    progress: bool,
    command: str = "",
    ask_classes: bool = False,
) -> Evaluation:
    """Make a run, or finish it, or show it.

    Args:
        progress: whether progress is shown.
        command: the command line that makes the same run; empty: there is none.
        ask_classes: whether the model's logits say how many classes the data have.

    Raises:
        BenchError: as `bench.runs.session.evaluate`.
    """
    check_writable(place.results_dir, "--results-dir")
    store = Store(place.results_dir)
    with borrowed(*modules_of(reference)), listener(progress) as observer:
        candidate = reference.load()
        if candidate.unidentified:
            warnings.warn(in_short(candidate.unidentified), stacklevel=_outside())
        if ask_classes:
            settings = _with_classes(settings, candidate)
        dataset = Samples(settings, place.data_dir).of(candidate)
        result = session.evaluate(candidate, dataset, settings, store, observer)
    origin = Origin(
        suite=settings.suite,
        reference=reference,
        dataset=dataset,
        data_dir=place.data_dir,
        model_dir=place.model_dir,
        trust_code=place.trust_code,
    )
    return Evaluation(
        result.summary, result.folder, origin, command, tuple(observer.notices), result.reused
    )


def command_line(
    model: Model,
    suite: str | os.PathLike[str] | Suite,
    settings: Settings,
    place: Place,
    name: str | None = None,
) -> str:
    """Return the command that makes the same run; empty where there is none.

    There is none for a model or a suite that exists in this process only.
    """
    if not (isinstance(model, str | os.PathLike) and isinstance(suite, str | os.PathLike)):
        return ""
    if name is not None:
        return ""
    words = ["bench", "run", "--suite", os.fspath(suite), "--candidate", os.fspath(model)]
    return shlex.join([*words, *option_words(settings), *place_words(place)])


def option_words(settings: Settings, names: Sequence[str] | None = None) -> list[str]:
    """Return the options of a command for the settings that are not the default.

    Args:
        names: of the settings; None: all.
    """
    words = []
    for each in fields(Settings):
        value = getattr(settings, each.name)
        is_wanted = _is_option(each) if names is None else each.name in names
        if is_wanted and value != each.default and each.name != "again":
            words += [option_name(each.name)] + ([] if value is True else [_text(each.name, value)])
    return words


def _text(name: str, value: Any) -> str:
    """Return a setting's value as the command line reads it: times have a unit there."""
    is_seconds = name == "budget" and not isinstance(value, str)
    return f"{value}s" if is_seconds else str(value)


def place_words(place: Place) -> list[str]:
    """Return the options of a command for folders that are not the usual ones."""
    words = []
    if place.results_dir != Path(DEFAULT_RESULTS):
        words += ["--results-dir", str(place.results_dir)]
    for name in ("data_dir", "model_dir"):
        if (folder := getattr(place, name)) is not None:
            words += [option_name(name), str(folder)]
    return words + (["--trust-code"] if place.trust_code else [])


def _is_option(setting: Any) -> bool:
    return "option" in setting.metadata


def _with_classes(settings: Settings, candidate: Candidate) -> Settings:
    """Return the settings with as many numbered classes as the candidate has logits."""
    data = settings.suite.data
    assert isinstance(data, DataInHand)
    named = data.dataset.classes
    width = width_of(candidate.module, data.dataset.images, settings.device)
    if width is None or width <= len(named) or named != numbered(len(named)):
        return settings
    dataset = replace(data.dataset, classes=numbered(width))
    suite = settings.suite.model_copy(update={"data": data.model_copy(update={"dataset": dataset})})
    return replace(settings, suite=suite)


def _outside() -> int:
    """Return the stack level, for `warnings`, of the user's line."""
    level, frame = 2, sys._getframe(2)
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).startswith("bench."):
        level, frame = level + 1, frame.f_back
    return level
