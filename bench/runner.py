"""Runs a candidate under a suite: makes the manifest, resumes, hands blocks to the store."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import numpy as np
import torch

from bench import environment, flags
from bench.attacks.registry import STANDARD
from bench.candidates import Candidate
from bench.candidates.mix import Mix
from bench.certify.accuracy import certified_counts
from bench.certify.accuracy import summarise as summarise_certificates
from bench.certify.smoothing import Smoothing
from bench.data import Dataset
from bench.engines import Engine, Task, Trials
from bench.engines.convergence import (
    ATTACKS,
    MOST_DOUBLINGS,
    SETTLED_SHARE,
    UNTIL_CONVERGED,
    doubled_name,
    expected_share,
)
from bench.engines.trials import WITNESSES
from bench.errors import InputError
from bench.records import (
    AttackSummary,
    Block,
    Convergence,
    DatasetRecord,
    Flag,
    ImageArray,
    Manifest,
    Progress,
    Selection,
    Summary,
    Witnesses,
)
from bench.statistics import exact_binomial_interval
from bench.store import RunFolder, Store, Tables, join_blocks
from bench.suites import Suite

INSPECTED_EXAMPLES = 32


class Observer(Protocol):
    """Is told what a run does; the command line draws it."""

    def progress(self, progress: Progress) -> None:
        """A block is finished, or a stage begins."""

    def notice(self, text: str) -> None:
        """Something the user should know that is no error."""


@dataclass(frozen=True)
class Settings:
    """How a suite is run.

    Attributes:
        batch_size: samples in one pass; None: the engine's own.
        n_examples: the first so many samples; None: as many as the suite says.
        every: only the first sample and every so many-th after it.
        eps: another radius than the suite's, in the [0, 1] pixel scale; None: the suite's.
        noise_samples: draws that bound a certified sample's probability; None: as many as the suite
            says.
        again: make a new run although a complete one exists.
        seed_witnesses: try the witnesses of the suite's earlier runs before any attack.
        until_converged: attack what survives on, until larger budgets change next to nothing.
    """

    suite: Suite
    engine: Engine
    protocol: str = "standard"
    seed: int = 0
    batch_size: int | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    n_examples: int | None = None
    every: int = 1
    eps: float | None = None
    noise_samples: int | None = None
    again: bool = False
    seed_witnesses: bool = False
    until_converged: bool = False


@dataclass(frozen=True)
class Outcome:
    """What came of a run.

    Attributes:
        reused: a complete run was there already; nothing was computed.
    """

    summary: Summary
    folder: RunFolder
    reused: bool


def selected_examples(settings: Settings) -> int | None:
    """How many samples to load; None: all of the data set."""
    return settings.suite.n_examples if settings.n_examples is None else settings.n_examples


def make_task(candidate: Candidate, dataset: Dataset, settings: Settings) -> Task:
    """What the engine is to do; moves the candidate to the device."""
    threat_model = settings.suite.threat_model
    if settings.eps is not None:
        threat_model = threat_model.model_copy(update={"eps": settings.eps})
    protocol = settings.suite.protocol(settings.protocol)
    smoothing = smoothing_of(candidate, settings)
    voter = candidate.module if smoothing is None else candidate.voter
    assert voter is not None
    return Task(
        module=voter.to(settings.device),
        images=dataset.images,
        labels=dataset.labels,
        indices=dataset.indices,
        classes=len(dataset.classes),
        threat_model=threat_model,
        attacks=protocol.attacks,
        seed=settings.seed,
        batch_size=settings.batch_size or settings.engine.default_batch_size(settings.device),
        device=settings.device,
        until_converged=settings.until_converged,
        smoothing=smoothing,
        mix=_certified_mix(candidate, settings) if smoothing is not None else None,
    )


def _certified_mix(candidate: Candidate, settings: Settings) -> Mix | None:
    """The candidate as a mix whose robust base votes, on the device; None if it is no mix."""
    module = candidate.module
    return module.to(settings.device) if isinstance(module, Mix) else None


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
    if task.threat_model.eps != suite.threat_model.eps:
        overrides["eps"] = task.threat_model.eps
    information = candidate.information
    return Manifest(
        kind="evaluation" if task.smoothing is None else "certification",
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
        selection=Selection(kind=_selection(settings, len(dataset) == whole), n=len(dataset)),
        overrides=overrides,
        weights_sha256=candidate.weights_sha256,
        definition_sha256=candidate.definition_sha256,
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
                },
                default=str,
            )
        ),
    )


def _selection(settings: Settings, whole: bool) -> Literal["all", "first", "every"]:
    if settings.every > 1:
        return "every"
    return "all" if whole else "first"


def evaluate(
    candidate: Candidate, dataset: Dataset, settings: Settings, store: Store, observer: Observer
) -> Outcome:
    """Evaluate a candidate, or finish an interrupted evaluation, or show a complete one.

    Raises:
        InputError: the candidate's logits are unusable, the run is being written by another
            process, or the results folder cannot be written.
    """
    task = make_task(candidate, dataset, settings)
    manifest = make_manifest(candidate, dataset, settings, task)
    folder, manifest = _choose_folder(manifest, store, settings.again)
    with folder.locked():
        if folder.is_complete and _is_sound(folder, observer):
            return Outcome(folder.summary(), folder, reused=True)
        raised = inspect(candidate, dataset, settings)
        folder.begin(manifest)
        manifest = folder.manifest()
        if folder.has_tables:
            tables = folder.tables(dataset.images.numpy(), dataset.indices.tolist())
            record: dict[str, float | str] = {}
        else:
            if settings.seed_witnesses:
                task = replace(task, trials=_known_witnesses(manifest, dataset, store))
            tables, record = _run_blocks(task, settings.engine, folder, observer)
        summary = summarise(manifest, tables, raised, record, finished=environment.now())
        folder.finish(tables, summary, _clean_images(dataset, tables.witnesses))
    return Outcome(summary, folder, reused=False)


def inspect(candidate: Candidate, dataset: Dataset, settings: Settings) -> list[Flag]:
    """Check a candidate's answers on a few samples before anything is attacked.

    Raises:
        InputError: unusable logits.
    """
    n = min(INSPECTED_EXAMPLES, len(dataset))
    return flags.inspect(
        candidate.name,
        candidate.module.to(settings.device),
        dataset.images[:n].to(settings.device),
        dataset.labels[:n].to(settings.device),
        len(dataset.classes),
        candidate.randomized,
    )


def summarise(
    manifest: Manifest,
    tables: Tables,
    raised: list[Flag],
    record: dict[str, float | str],
    finished: str,
) -> Summary:
    """A run in short.

    Args:
        raised: flags that were measured before the attacks.
        record: of the engine.
        finished: when the run ended.
    """
    if manifest.kind in {"certification", "imported-log"}:
        return summarise_certification(manifest, tables, raised, record, finished)
    samples, attempts = tables.samples, tables.attempts
    n = len(samples)
    clean = int(samples["clean_correct"].sum())
    robust = int(samples["robust"].sum())
    standing = clean
    attacks = []
    for attack in _attack_names(manifest, tables):
        rows = attempts[attempts["attack"] == attack]
        broken = int((rows["outcome"] == "broken").sum())
        standing -= broken
        attacks.append(
            AttackSummary(
                name=attack,
                attempted=len(rows),
                broken=broken,
                accuracy_after=standing / n,
                seconds=float(rows["seconds"].sum()),
                forward_passes=round(float(rows["forward_passes"].sum())),
                backward_passes=round(float(rows["backward_passes"].sum())),
            )
        )
    square = flags.square_beats_gradients(attacks, n)
    return Summary(
        manifest=manifest,
        run=manifest.run,
        n_examples=n,
        clean_accuracy=clean / n,
        autoattack_accuracy=_autoattack_accuracy(attacks),
        robust_accuracy=robust / n,
        confidence_intervals={
            "clean_accuracy": exact_binomial_interval(clean, n),
            "robust_accuracy": exact_binomial_interval(robust, n),
        },
        attacks=attacks,
        flags=[*raised, *([square] if square else [])],
        engine_record=record,
        convergence=_convergence(manifest, attacks, n),
        seconds=float(attempts["seconds"].sum()),
        started=str(manifest.environment.get("started", "")),
        finished=finished,
    )


def summarise_certification(
    manifest: Manifest,
    tables: Tables,
    raised: list[Flag],
    record: dict[str, float | str],
    finished: str,
) -> Summary:
    """A certification, or an imported log, in short; arguments as in `summarise`."""
    certificates = tables.certificates()
    n = len(certificates.index)
    clean = int((certificates.prediction == certificates.label).sum())
    (proved,) = certified_counts(certificates, [manifest.threat_model.eps])
    return Summary(
        manifest=manifest,
        run=manifest.run,
        n_examples=n,
        clean_accuracy=clean / n,
        autoattack_accuracy=None,
        robust_accuracy=proved / n,
        confidence_intervals={
            "clean_accuracy": exact_binomial_interval(clean, n),
            "robust_accuracy": exact_binomial_interval(proved, n),
        },
        attacks=[],
        flags=raised,
        engine_record=record,
        certified=summarise_certificates(certificates, manifest.engine_settings["sigma"]),
        seconds=float(record.get("seconds", 0.0)),
        started=str(manifest.environment.get("started", "")),
        finished=finished,
    )


def _autoattack_accuracy(attacks: list[AttackSummary]) -> float | None:
    """Accuracy after standard AutoAttack, if nothing else ran before its end."""
    names = tuple(attack.name for attack in attacks[: len(STANDARD)])
    return attacks[len(STANDARD) - 1].accuracy_after if names == STANDARD else None


def _attack_names(manifest: Manifest, tables: Tables) -> list[str]:
    """Attacks of the manifest, then those that the engine added, in the order they ran."""
    named = [str(choice["name"]) for choice in manifest.attacks]
    planned = [name for name in named if name != UNTIL_CONVERGED]
    return list(dict.fromkeys([*planned, *tables.attempts["attack"].unique()]))


def _convergence(manifest: Manifest, attacks: list[AttackSummary], n: int) -> Convergence | None:
    """What the doublings of a run that attacked until convergence brought."""
    if all(choice["name"] != UNTIL_CONVERGED for choice in manifest.attacks):
        return None
    passes, curve = 0, []
    for attack in attacks:
        passes += attack.forward_passes + attack.backward_passes
        curve.append((passes / n, attack.accuracy_after))
    accuracies = {attack.name: attack.accuracy_after for attack in attacks}
    standing = attacks[len(manifest.attacks) - 2].accuracy_after
    shares: list[float] = []
    for doubling in range(1, MOST_DOUBLINGS + 1):
        left = accuracies.get(doubled_name(ATTACKS[-1], doubling))
        if left is None or standing == 0:
            break
        shares.append(1 - left / standing)
        standing = left
    expected = expected_share(shares) if shares else 0.0
    return Convergence(
        shares_broken=shares,
        expected_share=expected,
        converged=standing == 0 or (bool(shares) and expected < SETTLED_SHARE),
        curve=curve,
    )


def _known_witnesses(manifest: Manifest, dataset: Dataset, store: Store) -> Trials | None:
    """Witnesses of the suite's complete runs on the same data, newest first.

    Runs of this very candidate are left out, so that its result stays its attacks' own; those of an
    earlier state of it, with other weights, count.
    """
    images, indices = dataset.images.numpy(), dataset.indices.tolist()
    found = []
    for run in store.runs(manifest.suite):
        if not run.is_complete:
            continue
        other = run.manifest()
        same_candidate = (
            other.weights_sha256 == manifest.weights_sha256
            and other.definition_sha256 == manifest.definition_sha256
        )
        same_images = other.dataset.name == manifest.dataset.name
        if (
            same_candidate
            or not same_images
            or other.threat_model.norm != manifest.threat_model.norm
        ):
            continue
        witnesses = run.witnesses(images, indices)
        if witnesses is not None and len(witnesses.index):
            found.append((run.summary().finished, witnesses))
    if not found:
        return None
    found.sort(key=lambda pair: pair[0], reverse=True)
    return Trials(
        torch.from_numpy(np.concatenate([witnesses.index for _, witnesses in found])),
        torch.from_numpy(np.concatenate([witnesses.images for _, witnesses in found])),
    )


def _choose_folder(manifest: Manifest, store: Store, again: bool) -> tuple[RunFolder, Manifest]:
    """The newest repetition of a run that has begun; with `again` one that is not complete."""
    while True:
        folder = store.folder(manifest)
        following = next_repetition(manifest)
        if not (store.folder(following).has_begun or (again and folder.is_complete)):
            return folder, manifest
        manifest = following


def next_repetition(manifest: Manifest) -> Manifest:
    """The manifest of the next repetition of a run."""
    return manifest.model_copy(update={"repetition": manifest.repetition + 1})


def _is_sound(folder: RunFolder, observer: Observer) -> bool:
    """Whether a complete run's files can be read; damaged ones are set aside."""
    damaged = folder.verify_tables()
    if not damaged:
        return True
    for moved in folder.set_aside_damaged(damaged):
        observer.notice(f"damaged, set aside as {moved}; what it held is computed again")
    return False


def _run_blocks(
    task: Task, engine: Engine, folder: RunFolder, observer: Observer
) -> tuple[Tables, dict[str, float | str]]:
    finished, damaged = folder.blocks()
    for path in damaged:
        observer.notice(f"damaged, set aside as {path}; its block is computed again")
    if finished:
        observer.notice(f"resuming: {len(finished)} blocks are finished")
    blocks = dict(finished)
    for block in engine.run(task, finished, observer.progress):
        folder.append(block)
        blocks[block.key] = block
    ordered = [blocks[key] for key in sorted(blocks)]
    return join_blocks(ordered), _join_records(ordered)


def _join_records(blocks: list[Block]) -> dict[str, float | str]:
    """The engine's record of a run: numbers of its blocks added up, texts as they are."""
    joined: dict[str, float | str] = {}
    for block in blocks:
        for name, value in block.record.items():
            before = joined.get(name)
            adds = isinstance(value, float | int) and isinstance(before, float | int)
            joined[name] = before + value if adds else value  # type: ignore[operator]
    return joined


def _clean_images(dataset: Dataset, witnesses: Witnesses | None) -> ImageArray:
    images: ImageArray = dataset.images.numpy()
    if witnesses is None:
        return images[:0]
    place = {index: position for position, index in enumerate(dataset.indices.tolist())}
    return images[[place[index] for index in witnesses.index.tolist()]]
