"""A kind of run as `bench.runs` makes it: its engine and task, its measurements, its summary."""

from __future__ import annotations

import importlib
from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from bench.candidates import Candidate
from bench.data import Dataset
from bench.engines import Engine, Task, Trials
from bench.errors import InputError
from bench.executors.stage import Executor
from bench.flags.certificates import unsound_certificates
from bench.runs.estimate import Estimate
from bench.runs.observer import Observer
from bench.runs.settings import Settings
from bench.store import Store
from bench.store.kinds import Kind, kind_named
from bench.store.manifest import Manifest
from bench.store.power import AttackPower
from bench.store.records import Block
from bench.store.selection import interval_of
from bench.store.summary import Flag, Summary
from bench.store.tables import Tables


class MadeKind(Kind):
    """A kind of run whose blocks become tables, and whose tables become a summary."""

    @abstractmethod
    def join(self, blocks: Sequence[Block]) -> Tables:
        """Return the tables that a run's blocks make together."""

    @abstractmethod
    def summarise(
        self,
        manifest: Manifest,
        tables: Tables,
        raised: Sequence[Flag],
        record: Mapping[str, float | str],
        finished: str,
    ) -> Summary:
        """Sum a run up.

        Args:
            raised: the flags raised so far.
            record: the engine's record, see `Block.record`.
            finished: time when the run ended.
        """


class RunnableKind(MadeKind):
    """A kind of run that `bench.runs.session.evaluate` makes.

    Attributes:
        supported_settings: names of the settings in `settings.OPTIONAL` that this kind supports.
    """

    supported_settings: frozenset[str] = frozenset()

    @abstractmethod
    def engine(self, settings: Settings) -> Engine[Any]:
        """Return the engine that does the work.

        Raises:
            InputError: the settings ask for an engine or a precision that does not exist.
        """

    @abstractmethod
    def task(
        self, candidate: Candidate, dataset: Dataset, settings: Settings, engine: Engine[Any]
    ) -> Task:
        """Return the engine's task; move the candidate to the device.

        Raises:
            InputError: the candidate cannot be used in a run of this kind.
        """

    def check(self, candidate: Candidate, dataset: Dataset, settings: Settings) -> None:
        """Refuse a candidate or its samples before anything runs.

        Raises:
            InputError: it cannot be used in a run of this kind.
        """

    def notices(self, task: Any, settings: Settings) -> list[str]:
        """Return what the user should know before a run begins, a sentence each."""
        return []

    def estimate(self, task: Any) -> Estimate | None:
        """Return how long one worker takes, as measured on its device; None if unknown.

        It is asked with a few of the samples, and scaled to all.
        """
        return None

    def averages(self, settings: Settings) -> bool:
        """Return whether a candidate's randomness is averaged over, so that it needs no flag."""
        return False

    def attacks(self, task: Any, settings: Settings) -> list[dict[str, Any]]:
        """Return the attacks as the manifest lists them, in their order."""
        return []

    def overrides(self, task: Any, settings: Settings) -> dict[str, Any]:
        """Return what differs from the suite as defined, beyond samples and radius."""
        return {}

    def check_progress(
        self,
        settings: Settings,
        task: Any,
        manifest: Manifest,
        blocks: Collection[Any],
        observer: Observer,
    ) -> None:
        """Stop a run whose first blocks show a fault, or report what the user should know.

        Raises:
            EvaluationError: the run would be useless; the message says why.
        """

    def prepared(self, task: Any, settings: Settings, manifest: Manifest, store: Store) -> Any:
        """Return the task with what it takes from earlier runs."""
        return task

    def measured(self, task: Any, tables: Tables) -> Tables:
        """Return the tables with columns that are measured after the last block."""
        return tables

    def measured_by(self, task: Any, tables: Tables, executor: Executor) -> Tables:
        """Return what `measured` does; a kind may let an executor's workers share it."""
        return self.measured(task, tables)

    def closing_flags(
        self,
        candidate: Candidate,
        dataset: Dataset,
        manifest: Manifest,
        tables: Tables,
        store: Store,
        device: torch.device,
    ) -> list[Flag]:
        """Return flags that follow from the finished records and from other runs.

        By default this is the flag for a certificate that a witness contradicts.
        """
        if not (self.certifies or self.has_witnesses):
            return []
        flag = unsound_certificates(candidate, dataset, manifest, tables, store, device)
        return [] if flag is None else [flag]

    def known_images(self, task: Any, summary: Summary, store: Store) -> Trials | None:
        """Return images that `extra_flags` may try."""
        return None

    def extra_flags(self, task: Any, tables: Tables, trials: Trials | None) -> list[Flag]:
        """Return flags that need attacks of their own, for `--flags full`."""
        return []

    def attack_power(self, task: Any) -> AttackPower | None:
        """Return which planted weaknesses the run's attacks find, for `--flags full`.

        None: the run does not attack.
        """
        return None


def runnable_kind(name: str) -> RunnableKind:
    """Return the kind of run called `name`.

    Raises:
        InputError: there is none, or it cannot be made by running a candidate.
    """
    kind = kind_named(name)
    if kind.maker:
        module, _, maker = kind.maker.partition(":")
        kind = getattr(importlib.import_module(module), maker)()
    if not isinstance(kind, RunnableKind):
        raise InputError(
            f"expected a kind of run that `bench run` makes, got {name!r}, which is imported"
        )
    return kind


def task_of(module: nn.Module, dataset: Dataset, settings: Settings, engine: Engine[Any]) -> Task:
    """Return what the tasks of all kinds of runs have: a network on its device, and samples.

    Args:
        module: what the engine runs.
        dataset: the selected samples.
        settings: name the device, the threat model, the seed and perhaps the batch size.
        engine: says which batch size is taken where the settings name none.
    """
    module = module.to(settings.device)
    images = dataset.images[:4].to(settings.device)
    return Task(
        module=module,
        images=dataset.images,
        labels=dataset.labels,
        indices=dataset.indices,
        classes=len(dataset.classes),
        threat_model=settings.threat_model,
        seed=settings.seed,
        batch_size=settings.batch_size or engine.default_batch_size(module, images),
        device=settings.device,
    )


def common_fields(
    manifest: Manifest,
    n: int,
    clean: int,
    robust: int,
    raised: Sequence[Flag],
    record: Mapping[str, float | str],
    finished: str,
) -> dict[str, Any]:
    """Return the fields that the summaries of all kinds have, but for `seconds`.

    Args:
        n: number of samples.
        clean: number of samples that count for the clean accuracy.
        robust: number of samples that count for the robust accuracy.
        raised, record, finished: as in `MadeKind.summarise`.
    """
    return {
        "manifest": manifest,
        "run": manifest.run,
        "n_examples": n,
        "clean_accuracy": clean / n,
        "robust_accuracy": robust / n,
        "confidence_intervals": {
            "clean_accuracy": interval_of(manifest.selection, clean, n),
            "robust_accuracy": interval_of(manifest.selection, robust, n),
        },
        "flags": list(raised),
        "engine_record": dict(record),
        "started": str(manifest.environment.get("started", "")),
        "finished": finished,
    }


def join_records(blocks: Collection[Block]) -> dict[str, float | str]:
    """Return the engine's record of a run: the sums of its blocks' numbers, and their texts."""
    joined: dict[str, float | str] = {}
    for block in blocks:
        for name, value in block.record.items():
            before = joined.get(name)
            adds = isinstance(value, float | int) and isinstance(before, float | int)
            joined[name] = before + value if adds else value  # type: ignore[operator]
    return joined
