"""Runs a candidate under a suite: resumes, hands blocks to the store, sums up."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Protocol

import torch
from torch import Tensor

from bench import environment, flags
from bench.attacks import ATTACKS, plan_attack
from bench.candidates import Candidate
from bench.candidates.identity import in_short
from bench.claims.gate import check_clean_accuracy
from bench.data import Dataset
from bench.eight_bit import eight_bit_successes
from bench.engines import Task
from bench.engines.batch_size import fitting_size
from bench.engines.prediction import decide
from bench.errors import InputError
from bench.flags.certificates import unsound_certificates
from bench.flags.extra import extra_flags
from bench.known_witnesses import known_witnesses
from bench.mix_records import with_mix_records
from bench.out_of_memory import with_as_many_as_fit
from bench.plan import (
    Settings,
    default_protocol,
    make_manifest,
    make_selection,
    make_task,
    next_repetition,
    selected_rows,
    smoothing_of,
)
from bench.precision import tensor_cores
from bench.recomputation import differentiable_checkpoints
from bench.records import Block, Flag, ImageArray, Manifest, Progress, Summary, Witnesses
from bench.rounds import run_in_rounds
from bench.same_candidate import same_candidate
from bench.store import RunFolder, Store
from bench.summary import summarise
from bench.tables import Tables, join_blocks

__all__ = [
    "Observer",
    "Outcome",
    "Settings",
    "choose_folder",
    "default_protocol",
    "evaluate",
    "finish",
    "inspect",
    "make_manifest",
    "make_selection",
    "make_task",
    "next_repetition",
    "selected_rows",
    "smoothing_of",
    "summarise",
]

INSPECTED_EXAMPLES = 32


class Observer(Protocol):
    """Is told what a run does; the command line draws it."""

    def progress(self, progress: Progress) -> None:
        """A block is finished, or a stage begins."""

    def notice(self, text: str) -> None:
        """Something the user should know that is no error."""


@dataclass(frozen=True)
class Outcome:
    """What came of a run.

    Attributes:
        reused: a complete run was there already; nothing was computed.
    """

    summary: Summary
    folder: RunFolder
    reused: bool


@tensor_cores(False)
@differentiable_checkpoints()
def evaluate(
    candidate: Candidate,
    dataset: Dataset,
    settings: Settings,
    store: Store,
    observer: Observer,
    inspected: Sequence[Flag] | None = None,
) -> Outcome:
    """Evaluate a candidate, or finish an interrupted evaluation, or show a complete one.

    Args:
        inspected: what `inspect` said of it under these settings; None: it was not asked yet.

    Raises:
        InputError: the candidate's logits are unusable, the run is being written by another
            process, or the results folder cannot be written.
        EvaluationError: the clean accuracy contradicts the published one; nothing was attacked.
    """
    task = make_task(candidate, dataset, settings)
    manifest = make_manifest(candidate, dataset, settings, task)
    for notice in dataset.notices:
        observer.notice(notice)
    folder, manifest = choose_folder(manifest, store, settings.again, observer.notice)
    with folder.locked():
        if folder.is_complete and _is_sound(folder, observer):
            summary = folder.summary()
            if settings.flags == "full" and summary.flags_checked == "basic":
                summary = _check_fully(summary, folder, task, dataset, store, observer)
            return Outcome(summary, folder, reused=True)
        raised = list(inspect(candidate, dataset, settings) if inspected is None else inspected)
        for note in candidate.information.weights:
            observer.notice(f"weights {note}" if note.startswith("read ") else note)
        folder.begin(manifest)
        manifest = folder.manifest()
        if "batch_size" not in manifest.engine_settings:
            size = fitting_size(task.module, task, task.batch_size, differentiable=False)
            if size < task.batch_size:
                observer.notice(f"batches of {size}: memory cannot hold {task.batch_size} images")
                task = replace(task, batch_size=size)
        if folder.has_tables:
            observer.notice("summed up again from its tables; how the engine made them is lost")
            tables = folder.tables(dataset.images.numpy(), dataset.indices.tolist())
            record: dict[str, float | str] = {}
        else:
            if settings.seed_witnesses:
                task = replace(task, trials=known_witnesses(manifest, dataset, store))
            tables, record = _run_blocks(task, settings, folder, observer)
        unsound = unsound_certificates(candidate, dataset, manifest, tables, store, settings.device)
        if unsound is not None:
            raised.append(unsound)
        outcome = finish(folder, task, dataset, tables, raised, record)
        if settings.flags == "full":
            summary = _check_fully(outcome.summary, folder, task, dataset, store, observer)
            outcome = replace(outcome, summary=summary)
        return outcome


def _check_fully(
    summary: Summary,
    folder: RunFolder,
    task: Task,
    dataset: Dataset,
    store: Store,
    observer: Observer,
) -> Summary:
    """Measure the flags that need attacks of their own; nothing else of the run changes."""
    observer.notice("checking its reliability by further attacks")
    tables = folder.tables(dataset.images.numpy(), dataset.indices.tolist())
    raised = extra_flags(task, tables, known_witnesses(summary.manifest, dataset, store))
    checked = summary.model_copy(
        update={"flags": [*summary.flags, *raised], "flags_checked": "full"}
    )
    folder.write_summary(checked)
    return checked


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
    manifest = folder.manifest()
    tables = with_mix_records(task, manifest, tables)
    is_sweep = manifest.kind == "sweep"
    chance_level = _chance_level(manifest, task.classes, tables)
    raised = [*raised, *([] if chance_level is None else [chance_level])]
    eight_bit = 0 if is_sweep else _eight_bit_successes(task, tables.witnesses)
    summary = summarise(manifest, tables, raised, record, environment.now(), eight_bit)
    folder.finish(tables, summary, _clean_images(dataset, tables.witnesses))
    return Outcome(summary, folder, reused=False)


@tensor_cores(False)
@differentiable_checkpoints()
def inspect(candidate: Candidate, dataset: Dataset, settings: Settings) -> list[Flag]:
    """Check a candidate's answers on a few samples before anything is attacked.

    Raises:
        InputError: unusable logits, or images that are too small for an attack of the protocol.
    """
    protocol = settings.suite.protocol(settings.protocol)
    _check_size(dataset, settings)
    # Randomness is no reason for doubt where it is declared and something averages over it.
    averages = protocol.certification is not None or any(
        choice.name in ATTACKS and ATTACKS[choice.name].need == "randomness"
        for choice in protocol.attacks
    )
    module = candidate.module.to(settings.device)

    def inspected(count: int) -> list[Flag]:
        return flags.inspect(
            candidate.name,
            module,
            dataset.images[:count].to(settings.device),
            dataset.labels[:count].to(settings.device),
            len(dataset.classes),
            candidate.randomized and averages,
            settings.suite.data,
        )

    return with_as_many_as_fit(min(INSPECTED_EXAMPLES, len(dataset)), inspected)


def _check_size(dataset: Dataset, settings: Settings) -> None:
    """Refuse attacks that need larger images before any of them runs."""
    suite, height = settings.suite, dataset.images.shape[2]
    for choice in suite.protocol(settings.protocol).attacks:
        attack = plan_attack(
            choice.name,
            choice.parameters,
            norm=suite.threat_model.norm,
            eps=suite.threat_model.eps,
            classes=max(len(dataset.classes), 2),
        ).attack
        if height < attack.least_height:
            field = f"protocols.{settings.protocol}.attacks"
            raise InputError(
                f"suite {suite.name}: field {field}: {choice.name} in {suite.threat_model.norm} "
                f"needs images of at least {attack.least_height} rows, "
                f"those of {dataset.name} have {height}; leave it out, or enlarge the images"
            )


def choose_folder(
    manifest: Manifest, store: Store, again: bool, notice: Callable[[str], None]
) -> tuple[RunFolder, Manifest]:
    """Return the run to finish or to show, or a new one, and its manifest.

    It is the newest repetition that has begun and is of this very candidate; a new one if there is
    none, or if that is complete and `again` asks for another.

    Args:
        notice: is told why a run is not taken up.
    """
    found: tuple[RunFolder, Manifest] | None = None
    others: list[str] = []
    while (folder := store.folder(manifest)).has_begun:
        recorded = _recorded(folder)
        # What cannot be read is found to be damaged, and set aside, by whoever takes it up.
        if recorded is None or same_candidate(recorded, manifest):
            found = folder, manifest
        else:
            others.append(folder.path.name)
        manifest = next_repetition(manifest)
    if manifest.unidentified:
        notice(in_short(manifest.unidentified))
    elif found is None and others:
        notice(
            f"a new run: it answers otherwise than when run {others[-1]} was made, though its "
            "files, weights and code are the same (another version of a package, or something "
            "read from elsewhere?)"
        )
    elif found is None and (before := _before_a_change(manifest, store)) is not None:
        notice(f"a new run: its files, its weights or its code changed since run {before}")
    if found is not None and not (again and found[0].is_complete):
        return found
    return folder, manifest


def _recorded(folder: RunFolder) -> Manifest | None:
    """The manifest of a run that has begun; None if it is damaged."""
    for read in (folder.manifest, lambda: folder.summary().manifest):
        with contextlib.suppress(InputError):
            return read()
    return None


def _before_a_change(manifest: Manifest, store: Store) -> str | None:
    """The name of a complete run that differs from this one in nothing but the candidate."""
    for folder in store.runs(manifest.suite, manifest.candidate):
        other = _recorded(folder) if folder.is_complete else None
        if other is None:
            continue
        changed = {
            "weights_sha256": manifest.weights_sha256,
            "definition_sha256": manifest.definition_sha256,
            "repetition": manifest.repetition,
        }
        if other.model_copy(update=changed).run == manifest.run:
            return other.run
    return None


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
        raised = _chance_level_so_far(manifest, task.classes, blocks.values())
        if raised is not None:
            observer.notice(f"{raised.name}: {raised.meaning} {raised.advice}")

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


def _chance_level_so_far(manifest: Manifest, classes: int, blocks: Iterable[Block]) -> Flag | None:
    """Flag a clean accuracy at chance level, once the clean predictions of a round are there."""
    clean = [block.clean for block in blocks if block.clean is not None]
    n = sum(len(part.index) for part in clean)
    selection = manifest.selection
    if n == 0 or n != min(selection.round or selection.n, selection.n):
        return None
    return flags.chance_level(
        sum(int((part.prediction == part.label).sum()) for part in clean), n, classes
    )


def _chance_level(manifest: Manifest, classes: int, tables: Tables) -> Flag | None:
    """Flag a finished run whose clean accuracy is at chance level."""
    if manifest.kind == "evaluation":
        right = tables.samples["clean_correct"].to_numpy()
    elif manifest.kind == "certification":
        certificates = tables.certificates()
        right = certificates.prediction == certificates.label
    else:
        return None
    return flags.chance_level(int(right.sum()), len(right), classes)


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
        parts = [decide(task, part).cpu() for part in torch.split(images, task.batch_size)]
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
