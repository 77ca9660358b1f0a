"""Make the manifest of a run, which decides its result, from settings, candidate and data."""

from __future__ import annotations

import json
import math
from typing import Any

from torch import Tensor

from bench.candidates import Candidate
from bench.data import Dataset
from bench.engines import Engine, Task
from bench.errors import InputError
from bench.runs import environment
from bench.runs.attack_code import with_code
from bench.runs.fingerprint import fingerprint
from bench.runs.kind import RunnableKind
from bench.runs.mix_records import describe_mix
from bench.runs.settings import Settings
from bench.store.manifest import DatasetRecord, Manifest, Selection
from bench.store.selection import rows_of
from bench.suites import Suite

SAMPLES_A_ROUND = 100
"""Samples in a round. A selection that may stop early is checked after each round."""

MOST_NAMED = 1000
"""Names of classes that a manifest tells its readers."""


def make_selection(settings: Settings, size: int) -> Selection:
    """Return which samples of a data set of `size` a run takes.

    Raises:
        InputError: stopping early without a random selection, or --every with one.
    """
    whole = settings.suite.n_examples or size
    n = settings.n_examples or whole
    budget = settings.budget_seconds
    audit = settings.audit
    stops = settings.until_width is not None or budget is not None or audit is not None
    if settings.every > 1:
        if settings.sample != "first" or stops:
            raise InputError(
                "--every cannot be used with --sample random, --until-width or --budget; use one "
                "or the other"
            )
        return Selection(kind="every", n=math.ceil(n / settings.every), step=settings.every)
    if settings.sample == "first":
        if stops:
            raise InputError(
                "--until-width and --budget cannot be used with --sample first, since the first "
                "samples say nothing about the others; add --sample random"
            )
        return Selection(kind="all" if n == whole else "first", n=n)
    if n == whole and not stops:
        return Selection(kind="all", n=n)
    return Selection(
        kind="random",
        n=n,
        seed=settings.sample_seed or 0,
        population=whole,
        round=audit.round if audit else SAMPLES_A_ROUND if stops else None,
        until_width=None if settings.until_width is None else settings.until_width / 100,
        budget_seconds=budget,
        claims=audit.claims if audit else None,
    )


def selected_rows(settings: Settings, size: int) -> Tensor:
    """Return the indices (n,) of a run's samples in a data set of `size`.

    Raises:
        InputError: as `make_selection`, or more samples than there are.
    """
    population = min(settings.suite.n_examples or size, size)
    if settings.sample == "first" and (settings.n_examples or 0) > population:
        population = size  # beyond the protocol's samples, up to the whole data set
    return rows_of(make_selection(settings, size), population)


def make_manifest(
    candidate: Candidate,
    dataset: Dataset,
    settings: Settings,
    kind: RunnableKind,
    engine: Engine[Any],
    task: Task,
) -> Manifest:
    """Return what decides the result of a run of this candidate, and the machine it is made on."""
    suite = settings.suite
    attacks, unread = with_code(kind.attacks(task, settings))
    return Manifest(
        kind=kind.name,
        suite=suite.name,
        suite_version=suite.version,
        candidate=candidate.name,
        dataset=dataset_record(suite, dataset),
        threat_model=task.threat_model,
        protocol=str(settings.protocol),
        attacks=attacks,
        engine=engine.name,
        engine_settings=engine.settings(task),
        precision=engine.precision,
        seed=settings.seed,
        selection=_selection(dataset, settings),
        overrides=_overrides(dataset, settings, task) | kind.overrides(task, settings),
        weights_sha256=candidate.weights_sha256,
        definition_sha256=candidate.definition_sha256,
        unidentified=[*candidate.unidentified, *unread],
        fingerprint=fingerprint(candidate, tuple(dataset.images.shape[1:]), settings.device),
        suite_title=suite.title,
        environment=environment.describe(settings.device),
        information=_information(candidate, dataset),
    )


def dataset_record(suite: Suite, dataset: Dataset) -> DatasetRecord:
    """Return what a run records of a suite's data set."""
    return DatasetRecord(
        name=dataset.name,
        sha256=dataset.sha256(),
        size=dataset.size,
        classes=dataset.classes if suite.data.name is None else None,
    )


def next_repetition(manifest: Manifest) -> Manifest:
    """Return the manifest of the next repetition of a run."""
    return manifest.model_copy(update={"repetition": manifest.repetition + 1})


def _selection(dataset: Dataset, settings: Settings) -> Selection:
    """Return the selection of a run's samples; it is `all` where it takes all samples."""
    whole = settings.suite.n_examples or dataset.size
    selection = make_selection(settings, dataset.size)
    if selection.kind not in ("all", "first"):
        return selection
    kind = "all" if len(dataset) == whole else "first"
    return Selection.model_validate({"kind": kind, "n": len(dataset)})


def _overrides(dataset: Dataset, settings: Settings, task: Task) -> dict[str, Any]:
    """Return what differs from the suite as defined: samples and radius."""
    whole = settings.suite.n_examples or dataset.size
    selection = make_selection(settings, dataset.size)
    overrides: dict[str, Any] = {}
    if settings.every > 1:
        overrides["every"] = settings.every
    examples = len(dataset) if settings.every == 1 else settings.n_examples or whole
    if examples != whole:
        overrides["n_examples"] = examples
    if selection.kind == "random":
        overrides["sample"] = "random"
    for name in ("until_width", "budget_seconds"):
        if (value := getattr(selection, name)) is not None:
            overrides[name] = value
    if task.threat_model.eps != settings.suite.threat_model.eps:
        overrides["eps"] = task.threat_model.eps
    return overrides


def _information(candidate: Candidate, dataset: Dataset) -> dict[str, Any]:
    """Return information about a candidate and its data, as plain data."""
    information = candidate.information
    content = {
        "architecture": information.architecture,
        "paper": information.paper.model_dump() if information.paper else None,
        "training": information.training,
        "additional_data": information.additional_data,
        "claim": information.claim,
        "weights": list(information.weights),
        "conversions": list(information.conversions),
        "mix": describe_mix(candidate),
        "data_notices": list(dataset.notices),
        "classes": list(dataset.classes[:MOST_NAMED]),
    }
    plain: dict[str, Any] = json.loads(json.dumps(content, default=str))
    return plain
