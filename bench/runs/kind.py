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
from bench.engines import Engine, Task
from bench.errors import InputError
from bench.runs.estimate import Estimate
from bench.runs.observer import Observer
from bench.runs.settings import Settings
from bench.store import Store
from bench.store.kinds import Kind, kind_named
from bench.store.manifest import Manifest
from bench.store.records import Block
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
            raised: flags so far.
            record: of the engine, see `Block.record`.
            finished: when the run ended.
        """


class RunnableKind(MadeKind):
    """A kind of run that `bench.runs.session.evaluate` makes.

    Attributes:
        supported_settings: names of the settings in `settings.OPTIONAL` that this kind supports.
    """

    supported_settings: frozenset[str] = frozenset()

    @abstractmethod
    def engine(self, settings: Settings) -> Engine[Any]:
        """Return what does the work.

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
            InputError: they cannot be used in a run of this kind.
        """

    def estimate(self, task: Any) -> Estimate | None:
        """Return how long the work will take; None if that is not known."""
        return None

    def averages(self, settings: Settings) -> bool:
        """Return whether randomness of a candidate is accounted for, so that it needs no flag."""
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
        """Stop a run whose first blocks show a fault, or report what they show.

        Raises:
            EvaluationError: the run would be useless; the message says why.
        """

    def prepared(self, task: Any, settings: Settings, manifest: Manifest, store: Store) -> Any:
        """Return the task with what earlier runs bring to it."""
        return task

    def measured(self, task: Any, tables: Tables) -> Tables:
        """Return the tables with what passes after the last block measure."""
        return tables

    def closing_flags(
        self,
        candidate: Candidate,
        dataset: Dataset,
        manifest: Manifest,
        tables: Tables,
        store: Store,
        device: torch.device,
    ) -> list[Flag]:
        """Return flags that follow from the finished records and from other runs."""
        return []

    def extra_flags(
        self, task: Any, summary: Summary, tables: Tables, dataset: Dataset, store: Store
    ) -> list[Flag]:
        """Return flags that need attacks of their own, for `--flags full`."""
        return []


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


def present(*flags: Flag | None) -> list[Flag]:
    """Return the flags that were raised."""
    return [flag for flag in flags if flag is not None]


def join_records(blocks: Collection[Block]) -> dict[str, float | str]:
    """Return the engine's record of a run: numbers of its blocks added up, texts as they are."""
    joined: dict[str, float | str] = {}
    for block in blocks:
        for name, value in block.record.items():
            before = joined.get(name)
            adds = isinstance(value, float | int) and isinstance(before, float | int)
            joined[name] = before + value if adds else value  # type: ignore[operator]
    return joined
