"""What is to be done: settings, samples, the engine's task, and the manifest that names the run."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from bench import environment
from bench.candidates import Candidate
from bench.candidates.mix import Mix
from bench.capabilities import applicable
from bench.certify.smoothing import Smoothing
from bench.data import Dataset
from bench.engines import Engine, Task
from bench.engines.convergence import UNTIL_CONVERGED
from bench.engines.sweep import SweepEngine
from bench.engines.trials import WITNESSES
from bench.errors import InputError
from bench.fingerprint import fingerprint
from bench.mix_records import describe_mix
from bench.records import DatasetRecord, Manifest, Selection
from bench.selection import rows_of
from bench.suites import Suite

SAMPLES_A_ROUND = 100
"""Of a selection that may stop early: it is looked at after each round."""


@dataclass(frozen=True)
class Settings:
    """How a suite is run.

    Attributes:
        batch_size: samples in one pass; None: the engine's own.
        n_examples: so many samples; None: as many as the suite says.
        every: only the first sample and every so many-th after it.
        sample: which ones: the first, or drawn at random without replacement.
        sample_seed: of that draw.
        until_width: stop when the robust accuracy's interval is at most so wide, a fraction.
        budget_seconds: stop when so much time is spent on blocks.
        eps: another radius than the suite's, in the [0, 1] pixel scale; None: the suite's.
        noise_samples: draws that bound a certified sample's probability; None: as many as the suite
            says.
        again: make a new run although a complete one exists.
        seed_witnesses: try the witnesses of the suite's earlier runs before any attack.
        until_converged: attack what survives on, until larger budgets change next to nothing.
        allow_clean_mismatch: attack although the clean accuracy contradicts the published one.
        flags: which reliability flags: those that come with the run, or those too that need attacks
            of their own.
    """

    suite: Suite
    engine: Engine
    protocol: str = "standard"
    seed: int = 0
    batch_size: int | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    n_examples: int | None = None
    every: int = 1
    sample: Literal["first", "random"] = "first"
    sample_seed: int = 0
    until_width: float | None = None
    budget_seconds: float | None = None
    eps: float | None = None
    noise_samples: int | None = None
    again: bool = False
    seed_witnesses: bool = False
    until_converged: bool = False
    allow_clean_mismatch: bool = False
    flags: Literal["basic", "full"] = "basic"


def make_selection(settings: Settings, size: int) -> Selection:
    """Which samples of a data set of `size` a run takes.

    Raises:
        InputError: stopping early without a random selection, or --every with one.
    """
    whole = settings.suite.n_examples or size
    n = settings.n_examples or whole
    stops = settings.until_width is not None or settings.budget_seconds is not None
    if settings.every > 1:
        if settings.sample != "first" or stops:
            raise InputError("expected --every or a random selection, got both")
        return Selection(kind="every", n=math.ceil(n / settings.every), step=settings.every)
    if settings.sample == "first":
        if stops:
            raise InputError(
                "expected a random selection beside --until-width and --budget, since the first "
                "samples say nothing about the others; add --sample random"
            )
        return Selection(kind="all" if n == whole else "first", n=n)
    if n == whole and not stops:
        return Selection(kind="all", n=n)
    return Selection(
        kind="random",
        n=n,
        seed=settings.sample_seed,
        population=whole,
        round=SAMPLES_A_ROUND if stops else None,
        until_width=settings.until_width,
        budget_seconds=settings.budget_seconds,
    )


def selected_rows(settings: Settings, size: int) -> Tensor:
    """Places (n,) of a run's samples in a data set of `size`.

    Raises:
        InputError: as `make_selection`, or more samples than there are.
    """
    population = min(settings.suite.n_examples or size, size)
    if settings.sample == "first" and (settings.n_examples or 0) > population:
        population = size  # beyond the protocol's samples, up to the whole data set
    return rows_of(make_selection(settings, size), population)


def make_task(candidate: Candidate, dataset: Dataset, settings: Settings) -> Task:
    """What the engine is to do; moves the candidate to the device."""
    threat_model = settings.suite.threat_model
    if settings.eps is not None:
        threat_model = threat_model.model_copy(update={"eps": settings.eps})
    protocol = settings.suite.protocol(settings.protocol)
    smoothing = smoothing_of(candidate, settings)
    voter = candidate.module if smoothing is None else candidate.voter
    assert voter is not None
    voter, images = voter.to(settings.device), dataset.images[:4].to(settings.device)
    return Task(
        module=voter,
        images=dataset.images,
        labels=dataset.labels,
        indices=dataset.indices,
        classes=len(dataset.classes),
        threat_model=threat_model,
        attacks=applicable(protocol.attacks, candidate, images),
        seed=settings.seed,
        batch_size=settings.batch_size or settings.engine.default_batch_size(voter, images),
        device=settings.device,
        until_converged=settings.until_converged,
        randomized=candidate.randomized and smoothing is None,
        surrogate=None if candidate.surrogate is None else candidate.surrogate.to(settings.device),
        smoothing=smoothing,
        mix=_certified_mix(candidate, settings) if smoothing is not None else None,
    )


def _certified_mix(candidate: Candidate, settings: Settings) -> Mix | None:
    """The candidate as a mix whose robust base votes, on the device; None if it is no mix."""
    module = candidate.module
    return module.to(settings.device) if isinstance(module, Mix) else None


def default_protocol(candidate: Candidate, suite: Suite) -> str:
    """The protocol of a candidate for which the user names none: a mix is attacked adaptively."""
    adaptive = candidate.mix is not None and "adaptive" in suite.protocols
    return "adaptive" if adaptive else "standard"


def smoothing_of(candidate: Candidate, settings: Settings) -> Smoothing | None:
    """What the protocol certifies of a candidate; None where it attacks.

    Raises:
        InputError: the candidate is no smoothed classifier.
    """
    certification = settings.suite.protocol(settings.protocol).certification
    if certification is None:
        return None
    if candidate.sigma is None or candidate.voter is None:
        raise InputError(
            f"candidate {candidate.name}: expected a smoothed classifier, or a mix of fixed weight "
            "whose robust base is one: they alone can be certified; got one without sigma. Wrap it "
            "by the architecture bench.candidates.smoothed:smoothed"
        )
    smoothing = Smoothing(candidate.sigma, **certification.model_dump())
    if settings.noise_samples is None:
        return smoothing
    return replace(smoothing, noise_samples=settings.noise_samples)


def make_manifest(
    candidate: Candidate, dataset: Dataset, settings: Settings, task: Task
) -> Manifest:
    """What decides the result of a run of this candidate, and where it is made."""
    suite = settings.suite
    whole = suite.n_examples or dataset.size
    selection = make_selection(settings, dataset.size)
    if selection.kind in ("all", "first"):
        kind = "all" if len(dataset) == whole else "first"
        selection = Selection.model_validate({"kind": kind, "n": len(dataset)})
    overrides: dict[str, Any] = {}
    if settings.every > 1:
        overrides["every"] = settings.every
    examples = len(dataset) if settings.every == 1 else settings.n_examples or whole
    if examples != whole:
        overrides["n_examples"] = examples
    certification = suite.protocol(settings.protocol).certification
    if task.smoothing is not None and certification is not None:
        noise_samples = task.smoothing.noise_samples
        if noise_samples != certification.noise_samples:
            overrides["noise_samples"] = noise_samples
    if selection.kind == "random":
        overrides["sample"] = "random"
    for name in ("until_width", "budget_seconds"):
        if (value := getattr(selection, name)) is not None:
            overrides[name] = value
    if task.threat_model.eps != suite.threat_model.eps:
        overrides["eps"] = task.threat_model.eps
    information = candidate.information
    return Manifest(
        kind=_kind(settings, task),
        suite=suite.name,
        suite_version=suite.version,
        candidate=candidate.name,
        dataset=DatasetRecord(name=dataset.name, sha256=dataset.sha256(), size=dataset.size),
        threat_model=task.threat_model,
        protocol=settings.protocol,
        attacks=[
            *([{"name": WITNESSES}] if settings.seed_witnesses else []),
            *(attack.model_dump(mode="json") for attack in task.attacks),
            *([{"name": UNTIL_CONVERGED}] if settings.until_converged else []),
        ],
        engine=settings.engine.name,
        engine_settings=settings.engine.settings(task),
        precision=settings.engine.precision,
        seed=settings.seed,
        selection=selection,
        overrides=overrides,
        weights_sha256=candidate.weights_sha256,
        definition_sha256=candidate.definition_sha256,
        unidentified=list(candidate.unidentified),
        fingerprint=fingerprint(candidate, tuple(dataset.images.shape[1:]), settings.device),
        suite_title=suite.title,
        environment=environment.describe(settings.device),
        information=json.loads(
            json.dumps(
                {
                    "architecture": information.architecture,
                    "paper": information.paper.model_dump() if information.paper else None,
                    "training": information.training,
                    "additional_data": information.additional_data,
                    "claim": information.claim,
                    "mix": describe_mix(candidate),
                },
                default=str,
            )
        ),
    )


def _kind(settings: Settings, task: Task) -> Literal["evaluation", "certification", "sweep"]:
    if task.smoothing is not None:
        return "certification"
    return "sweep" if settings.engine.name == SweepEngine.name else "evaluation"


def next_repetition(manifest: Manifest) -> Manifest:
    """The manifest of the next repetition of a run."""
    return manifest.model_copy(update={"repetition": manifest.repetition + 1})
