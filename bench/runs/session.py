"""Make one run: begin or resume it, store its blocks, and sum it up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from bench import flags
from bench.candidates import Candidate
from bench.candidates.recomputation import differentiable_checkpoints
from bench.data import Dataset
from bench.engines import Engine, Task
from bench.engines.acceleration import default_precision
from bench.engines.answering import answered_rows
from bench.engines.batch_size import fitting_size
from bench.errors import FOREIGN_ERRORS, BenchError, InputError
from bench.executors.choice import ExecutorChoice, executing
from bench.executors.stage import Executor
from bench.executors.worker import is_at_fault
from bench.flags.power import power_flag
from bench.memory.out_of_memory import with_as_many_as_fit
from bench.precision import tensor_cores
from bench.runs import environment
from bench.runs.full_checks import full_checks
from bench.runs.kind import MadeKind, RunnableKind, join_records, runnable_kind
from bench.runs.manifest import make_manifest
from bench.runs.observer import Observer
from bench.runs.resume import choose_folder, finished_blocks, is_sound, restore_manifest
from bench.runs.rounds import run_in_rounds
from bench.runs.run_events import RunEvents
from bench.runs.settings import Settings
from bench.store import RunFolder, Store
from bench.store.manifest import Manifest
from bench.store.records import Block, ImageArray, Witnesses
from bench.store.summary import Flag, Summary
from bench.store.tables import Tables

INSPECTED_EXAMPLES = 32


@dataclass(frozen=True)
class RunResult:
    """The result of a run.

    Attributes:
        reused: whether a complete run existed, so that nothing was computed.
    """

    summary: Summary
    folder: RunFolder
    reused: bool


@dataclass(frozen=True)
class Plan:
    """A planned run: its kind, its engine, its task and its manifest."""

    kind: RunnableKind
    engine: Engine[Any]
    task: Task
    manifest: Manifest


def make_plan(candidate: Candidate, dataset: Dataset, settings: Settings) -> Plan:
    """Plan a run; move the candidate to the device.

    Raises:
        InputError: the settings or the candidate cannot be used with the protocol.
    """
    settings = settings.of_candidate(candidate)
    kind = runnable_kind(settings.chosen_protocol.kind)
    settings.check_for(kind.supported_settings, str(settings.protocol))
    engine = kind.engine(settings)
    task = kind.task(candidate, dataset, settings, engine)
    manifest = make_manifest(candidate, dataset, settings, kind, engine, task)
    return Plan(kind, engine, task, manifest)


@tensor_cores(False)
@differentiable_checkpoints()
def evaluate(
    candidate: Candidate,
    dataset: Dataset,
    settings: Settings,
    store: Store,
    observer: Observer,
    inspected: Sequence[Flag] | None = None,
    executor: Executor | None = None,
) -> RunResult:
    """Evaluate a candidate: finish an interrupted run, reuse a complete one, or make a new one.

    Args:
        inspected: flags that `inspect` raised under these settings; None: it was not called yet.
        executor: does the engine's work; None: this machine, with as many processes as pay.

    Raises:
        InputError: the candidate's logits are unusable, the run is being written by another
            process, or the results folder cannot be written.
        EvaluationError: the clean accuracy contradicts the published one; nothing was attacked.
    """
    if executor is None:
        with executing(ExecutorChoice()) as executor:
            return evaluate(candidate, dataset, settings, store, observer, inspected, executor)
    settings = _on_workers(settings.of_candidate(candidate), executor)
    plan = _planned(candidate, dataset, settings)
    for notice in dataset.notices:
        observer.notice(notice)
    folder, manifest = choose_folder(plan.manifest, store, settings.again, observer.notice)
    with folder.locked():
        restore_manifest(folder, manifest, observer.notice)
        if folder.is_complete and is_sound(folder, observer.notice):
            summary, reused = folder.summary(), True
        else:
            if inspected is None:
                inspected = inspect(candidate, dataset, settings, plan.kind)
            raised = list(inspected)
            for note in candidate.information.weights:
                observer.notice(f"weights {note}" if note.startswith("read ") else note)
            for note in (
                *candidate.information.conversions,
                *plan.kind.notices(plan.task, settings),
            ):
                observer.notice(note)
            folder.begin(manifest)
            events = RunEvents(folder, observer)
            with events.running():
                followed = executor.following(events)
                tables, record = _tables(plan, settings, folder, store, events, followed)
                raised += plan.kind.closing_flags(
                    candidate, dataset, folder.manifest(), tables, store, settings.device
                )
                tables = plan.kind.measured_by(plan.task, tables, followed)
                summary = complete(folder, plan.kind, dataset, tables, raised, record)
            reused = False
        if settings.flags == "full" and summary.flags_checked == "basic":
            summary = _check_fully(summary, plan, folder, dataset, store, observer, executor)
    return RunResult(summary, folder, reused)


def _planned(candidate: Candidate, dataset: Dataset, settings: Settings) -> Plan:
    """Plan a run; where the candidate raises an error, its inspection says which, by name."""
    try:
        return make_plan(candidate, dataset, settings)
    except BenchError:
        raise
    except FOREIGN_ERRORS:
        inspect(candidate, dataset, settings, runnable_kind(settings.chosen_protocol.kind))
        raise


def _on_workers(settings: Settings, executor: Executor) -> Settings:
    """Return settings with the search's precision for the workers' devices, if none is asked for.

    What is certified is the classifier in one precision, wherever its votes are taken.
    """
    device = executor.device_type
    if settings.precision is not None or device in (None, settings.device.type):
        return settings
    if settings.engine == "reference" or runnable_kind(settings.chosen_protocol.kind).certifies:
        return settings
    return replace(settings, precision=default_precision(torch.device(device)))


def complete(
    folder: RunFolder,
    kind: MadeKind,
    dataset: Dataset,
    tables: Tables,
    raised: Sequence[Flag] = (),
    record: dict[str, float | str] | None = None,
) -> Summary:
    """Sum a run up and write its tables and summary; the folder must be locked.

    Args:
        dataset: the samples of the run.
        raised: flags that were raised so far; those that follow from the records are added.
        record: the engine's record.
    """
    summary = kind.summarise(folder.manifest(), tables, raised, record or {}, environment.now())
    found = flags.flags_of_records(summary, tables, len(dataset.classes))
    summary = summary.model_copy(update={"flags": [*summary.flags, *found]})
    folder.finish(
        tables,
        summary,
        _clean_images(dataset, tables.witnesses),
        _clean_images(dataset, tables.smallest_images),
    )
    return summary


@tensor_cores(False)
@differentiable_checkpoints()
def inspect(
    candidate: Candidate, dataset: Dataset, settings: Settings, kind: RunnableKind
) -> list[Flag]:
    """Check a candidate's answers on a few samples before anything is attacked.

    Samples on which the candidate raises an error are left out, if they are few.

    Raises:
        InputError: the logits are unusable, or the kind of run cannot use the candidate.
    """
    kind.check(candidate, dataset, settings)
    # Declared randomness needs no flag if the attacks or votes average over it.
    averages = kind.averages(settings)
    module = candidate.module.to(settings.device)

    def inspected_rows(rows: Tensor) -> list[Flag]:
        return flags.inspect(
            candidate.name,
            module,
            dataset.images[rows].to(settings.device),
            dataset.labels[rows].to(settings.device),
            len(dataset.classes),
            candidate.randomized and averages,
            settings.suite.data,
        )

    def inspected(count: int) -> list[Flag]:
        try:
            return inspected_rows(torch.arange(count))
        except InputError as error:
            if error.__cause__ is None:  # the candidate answered, though not well
                raise
            try:
                rows = answered_rows(module, dataset.images[:count].to(settings.device))
            except FOREIGN_ERRORS:  # on every image: the inspection's words say what was expected
                raise error from error.__cause__
            failed = count - len(rows)
            if not failed or is_at_fault(failed, count):
                raise
            return inspected_rows(rows)  # the run records what fails

    return with_as_many_as_fit(min(INSPECTED_EXAMPLES, len(dataset)), inspected)


def _tables(
    plan: Plan,
    settings: Settings,
    folder: RunFolder,
    store: Store,
    events: RunEvents,
    executor: Executor,
) -> tuple[Tables, dict[str, float | str]]:
    """Return the tables and the engine's record, from the blocks or from the files."""
    task, manifest = plan.task, folder.manifest()
    if folder.can_be_summed_up:
        record = folder.engine_record()
        lost = "; how the engine made them is lost" if record is None else ""
        events.notice(f"summed up again from its tables{lost}")
        return folder.tables(task.images.numpy(), task.indices.tolist()), record or {}
    if "batch_size" not in manifest.engine_settings:
        size = fitting_size(task.module, task, task.batch_size, differentiable=False)
        if size < task.batch_size:
            events.notice(f"batches of {size}: out of memory with {task.batch_size} images")
            task = replace(task, batch_size=size)
    task = plan.kind.prepared(task, settings, manifest, store)
    blocks = _run_blocks(replace(plan, task=task), settings, folder, events, executor)
    return plan.kind.join(blocks), join_records(blocks)


def _run_blocks(
    plan: Plan, settings: Settings, folder: RunFolder, events: RunEvents, executor: Executor
) -> list[Block]:
    """Return all blocks, sorted by key: those of an interrupted run and new ones."""
    manifest = folder.manifest()
    finished = finished_blocks(folder, events)
    blocks = dict(finished)
    plan.kind.check_progress(settings, plan.task, manifest, blocks.values(), events)
    work = (
        plan.engine.run(plan.task, finished, events.progress, executor)
        if manifest.selection.round is None
        else run_in_rounds(
            plan.task, plan.engine, manifest.selection, finished, events, executor, settings.audit
        )
    )
    for block in work:
        folder.append(block)
        events.block(block)
        blocks[block.key] = block
        # Engines are lazy: they compute a block only when it is asked for.
        plan.kind.check_progress(settings, plan.task, manifest, blocks.values(), events)
    return [blocks[key] for key in sorted(blocks)]


def _check_fully(
    summary: Summary,
    plan: Plan,
    folder: RunFolder,
    dataset: Dataset,
    store: Store,
    observer: Observer,
    executor: Executor,
) -> Summary:
    """Measure the flags that need attacks of their own; the rest of the run stays."""
    observer.notice(
        "running the attacks of the reliability checks, and planting known weaknesses, to see "
        "whether the attacks find them"
    )
    tables = folder.tables(dataset.images.numpy(), dataset.indices.tolist())
    trials = plan.kind.known_images(plan.task, summary, store)
    raised, power = full_checks(plan.kind, plan.task, summary, tables, trials, executor)
    changes: dict[str, Any] = {"flags_checked": "full"}
    if power is not None:
        changes["attack_power"] = power
        raised += [flag for flag in [power_flag(power)] if flag is not None]
    checked = summary.model_copy(update={"flags": [*summary.flags, *raised], **changes})
    folder.write_summary(checked)
    return checked


def _clean_images(dataset: Dataset, witnesses: Witnesses | None) -> ImageArray:
    images: ImageArray = dataset.images.numpy()
    if witnesses is None:
        return images[:0]
    place = {index: position for position, index in enumerate(dataset.indices.tolist())}
    return images[[place[index] for index in witnesses.index.tolist()]]
