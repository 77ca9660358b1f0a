"""Runs a candidate under a suite: makes the manifest, resumes, hands blocks to the store."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from bench import environment, flags
from bench.attacks.registry import STANDARD
from bench.candidates import Candidate
from bench.claims.gate import check_clean_accuracy
from bench.data import Dataset
from bench.eight_bit import eight_bit_successes
from bench.engines import Engine, Task
from bench.engines.engine import predict
from bench.errors import InputError
from bench.records import (
    AttackSummary,
    Block,
    DatasetRecord,
    Flag,
    ImageArray,
    Manifest,
    Progress,
    Selection,
    Summary,
    Witnesses,
)
from bench.rounds import run_in_rounds
from bench.selection import interval_of, rows_of
from bench.store import RunFolder, Store, Tables, join_blocks
from bench.suites import Suite

INSPECTED_EXAMPLES = 32
SAMPLES_A_ROUND = 100
"""Of a selection that may stop early: it is looked at after each round."""


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
        n_examples: so many samples; None: as many as the suite says.
        sample: which ones: the first, or drawn at random without replacement.
        sample_seed: of that draw.
        until_width: stop when the robust accuracy's interval is at most so wide, a fraction.
        budget_seconds: stop when so much time is spent on blocks.
        eps: another radius than the suite's, in the [0, 1] pixel scale; None: the suite's.
        again: make a new run although a complete one exists.
        allow_clean_mismatch: attack although the clean accuracy contradicts the published one.
    """

    suite: Suite
    engine: Engine
    protocol: str = "standard"
    seed: int = 0
    batch_size: int | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    n_examples: int | None = None
    sample: Literal["first", "random"] = "first"
    sample_seed: int = 0
    until_width: float | None = None
    budget_seconds: float | None = None
    eps: float | None = None
    again: bool = False
    allow_clean_mismatch: bool = False


@dataclass(frozen=True)
class Outcome:
    """What came of a run.

    Attributes:
        reused: a complete run was there already; nothing was computed.
    """

    summary: Summary
    folder: RunFolder
    reused: bool


def make_selection(settings: Settings, size: int) -> Selection:
    """Which samples of a data set of `size` a run takes.

    Raises:
        InputError: stopping early without a random selection.
    """
    whole = settings.suite.n_examples or size
    n = settings.n_examples or whole
    stops = settings.until_width is not None or settings.budget_seconds is not None
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
    return Task(
        module=candidate.module.to(settings.device),
        images=dataset.images,
        labels=dataset.labels,
        indices=dataset.indices,
        classes=len(dataset.classes),
        threat_model=threat_model,
        attacks=settings.suite.protocol(settings.protocol).attacks,
        seed=settings.seed,
        batch_size=settings.batch_size or settings.engine.default_batch_size(settings.device),
        device=settings.device,
    )


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
    if len(dataset) != whole:
        overrides["n_examples"] = len(dataset)
    if selection.kind == "random":
        overrides["sample"] = "random"
    for name in ("until_width", "budget_seconds"):
        if (value := getattr(selection, name)) is not None:
            overrides[name] = value
    if task.threat_model.eps != suite.threat_model.eps:
        overrides["eps"] = task.threat_model.eps
    information = candidate.information
    return Manifest(
        suite=suite.name,
        suite_version=suite.version,
        candidate=candidate.name,
        dataset=DatasetRecord(name=dataset.name, sha256=dataset.sha256(), size=dataset.size),
        threat_model=task.threat_model,
        protocol=settings.protocol,
        attacks=[attack.model_dump(mode="json") for attack in task.attacks],
        engine=settings.engine.name,
        engine_settings=settings.engine.settings(task),
        precision=settings.engine.precision,
        seed=settings.seed,
        selection=selection,
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


def evaluate(
    candidate: Candidate, dataset: Dataset, settings: Settings, store: Store, observer: Observer
) -> Outcome:
    """Evaluate a candidate, or finish an interrupted evaluation, or show a complete one.

    Raises:
        InputError: the candidate's logits are unusable, the run is being written by another
            process, or the results folder cannot be written.
        EvaluationError: the clean accuracy contradicts the published one; nothing was attacked.
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
            tables, record = _run_blocks(task, settings, folder, observer)
        return finish(folder, task, dataset, tables, raised, record)


def finish(
    folder: RunFolder,
    task: Task,
    dataset: Dataset,
    tables: Tables,
    raised: Sequence[Flag] = (),
    record: Mapping[str, float | str] = MappingProxyType({}),
) -> Outcome:
    """Sum a run up and write what makes it complete; the folder is locked.

    Args:
        dataset: the samples of the task.
        raised: flags that were measured before the attacks.
        record: of the engine.
    """
    eight_bit = _eight_bit_successes(task, tables.witnesses)
    summary = summarise(folder.manifest(), tables, raised, record, environment.now(), eight_bit)
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
    raised: Sequence[Flag],
    record: Mapping[str, float | str],
    finished: str,
    eight_bit: int,
) -> Summary:
    """A run in short.

    Args:
        eight_bit: how many witnesses break their samples as 8-bit images too.
        raised: flags that were measured before the attacks.
        record: of the engine.
        finished: when the run ended.
    """
    samples, attempts = tables.samples, tables.attempts
    n = len(samples)
    clean = int(samples["clean_correct"].sum())
    robust = int(samples["robust"].sum())
    standing = clean
    attacks = []
    for attack in (str(choice["name"]) for choice in manifest.attacks):
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
    square = flags.square_beats_gradients(attacks)
    return Summary(
        manifest=manifest,
        run=manifest.run,
        n_examples=n,
        clean_accuracy=clean / n,
        autoattack_accuracy=_autoattack_accuracy(attacks),
        robust_accuracy=robust / n,
        eight_bit_robust_accuracy=(clean - eight_bit) / n,
        confidence_intervals={
            "clean_accuracy": interval_of(manifest.selection, clean, n),
            "robust_accuracy": interval_of(manifest.selection, robust, n),
        },
        attacks=attacks,
        flags=[*raised, *([square] if square else [])],
        engine_record=dict(record),
        seconds=float(attempts["seconds"].sum()),
        started=str(manifest.environment.get("started", "")),
        finished=finished,
    )


def _autoattack_accuracy(attacks: list[AttackSummary]) -> float | None:
    """Accuracy after standard AutoAttack, if nothing else ran before its end."""
    names = tuple(attack.name for attack in attacks[: len(STANDARD)])
    return attacks[len(STANDARD) - 1].accuracy_after if names == STANDARD else None


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
    task: Task, settings: Settings, folder: RunFolder, observer: Observer
) -> tuple[Tables, dict[str, float | str]]:
    finished, damaged = folder.blocks()
    for path in damaged:
        observer.notice(f"damaged, set aside as {path}; its block is computed again")
    if finished:
        observer.notice(f"resuming: {len(finished)} blocks are finished")
    blocks = dict(finished)
    manifest = folder.manifest()

    def check_clean() -> None:
        if not settings.allow_clean_mismatch:
            check_clean_accuracy(settings.suite, manifest, blocks.values())

    check_clean()
    work = (
        settings.engine.run(task, finished, observer.progress)
        if manifest.selection.round is None
        else run_in_rounds(task, settings.engine, manifest.selection, finished, observer)
    )
    for block in work:
        folder.append(block)
        blocks[block.key] = block
        if block.clean is not None:  # engines work when asked for the next block: not yet attacked
            check_clean()
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


def _eight_bit_successes(task: Task, witnesses: Witnesses | None) -> int:
    """How many witnesses break their samples as 8-bit images too."""
    if witnesses is None:
        return 0
    place = {index: row for row, index in enumerate(task.indices.tolist())}
    rows = torch.tensor([place[index] for index in witnesses.index.tolist()])

    def classes(images: Tensor) -> Tensor:
        parts = [
            predict(task.module, part, task.device) for part in torch.split(images, task.batch_size)
        ]
        return torch.cat(parts)

    broken = eight_bit_successes(
        torch.from_numpy(witnesses.images),
        task.images[rows],
        task.labels[rows],
        classes,
        task.threat_model.norm,
        task.threat_model.eps,
    )
    return int(broken.sum())


def _clean_images(dataset: Dataset, witnesses: Witnesses | None) -> ImageArray:
    images: ImageArray = dataset.images.numpy()
    if witnesses is None:
        return images[:0]
    place = {index: position for position, index in enumerate(dataset.indices.tolist())}
    return images[[place[index] for index in witnesses.index.tolist()]]
