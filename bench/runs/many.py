"""Several candidates under one suite: one after the other, or side by side on a cluster."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.candidates import Candidate, CandidateReference
from bench.candidates.bases import MixReference
from bench.candidates.named.made import SourceReference
from bench.candidates.submission_reference import SubmissionReference
from bench.errors import FOREIGN_ERRORS, BenchError, InputError, Unavailable, raised
from bench.executors.crew_executor import CrewExecutor
from bench.executors.stage import Executor
from bench.memory.allocator import tensor_bytes
from bench.runs.kind import runnable_kind
from bench.runs.observer import Observer
from bench.runs.samples import Samples
from bench.runs.session import RunResult, evaluate, inspect
from bench.runs.settings import Settings
from bench.runs.side_by_side import side_by_side
from bench.store import Store
from bench.store.summary import Flag

Checked = tuple[Candidate, list[Flag]]
"""A loaded candidate, and the flags that its inspection raised."""

MOST_BYTES_HELD = 2 << 30
"""Most memory for loaded candidates that wait for their turn; others are loaded again."""


@dataclass(frozen=True)
class Turn:
    """The result of one candidate's turn; exactly one of the three is set.

    Attributes:
        result: the result of the run.
        unavailable: why the candidate is unavailable.
        failure: why the run failed.
    """

    name: str
    result: RunResult | None = None
    unavailable: str = ""
    failure: str = ""


def evaluate_each(
    references: Sequence[CandidateReference],
    settings: Settings,
    samples: Samples,
    store: Store,
    observe: Callable[[str], Observer],
    checked: dict[str, Checked] | None = None,
    executor: Executor | None = None,
) -> Generator[Turn]:
    """Evaluate candidates; if one fails, the others go on.

    On a cluster several share the workers, so that none waits for the last samples of another.

    Args:
        observe: told of each candidate whose evaluation begins; returns who is told of its run.
        checked: candidates that are already loaded, by name; each is taken out for its turn.
        executor: does the engines' work; None: this machine.

    Returns:
        a turn of each candidate, as they end.

    Raises:
        BenchError: the only candidate cannot be evaluated.
    """
    ready = {} if checked is None else checked

    def loaded(reference: CandidateReference) -> tuple[Candidate, list[Flag] | None]:
        return ready.pop(reference.name, None) or (reference.load(), None)

    def turn(
        reference: CandidateReference,
        executor: Executor | None,
        holds: Callable[[Candidate], None],
    ) -> Turn:
        try:
            observer = observe(reference.name)
            candidate, flags = loaded(reference)
            holds(candidate)
            dataset = samples.of(candidate)
            result = evaluate(candidate, dataset, settings, store, observer, flags, executor)
        except Unavailable as error:
            return Turn(reference.name, unavailable=str(error))
        except BenchError as error:
            if len(references) == 1:
                raise
            return Turn(reference.name, failure=str(error))
        except FOREIGN_ERRORS as error:
            return Turn(reference.name, failure=f"failed: {raised(error)}")
        return Turn(reference.name, result)

    if isinstance(executor, CrewExecutor) and len(references) > 1:
        yield from side_by_side(references, turn, executor)
        return
    for reference in references:
        yield turn(reference, executor, lambda _: None)


def check_each(
    references: Iterable[CandidateReference], settings: Settings, samples: Samples
) -> dict[str, Checked]:
    """Load and inspect the candidates on this disk, to find wrong input before anything runs.

    Returns:
        the candidates by name, with the flags that they raised; not more than memory should hold.

    Raises:
        InputError: a candidate cannot be evaluated.
    """
    checked: dict[str, Checked] = {}
    held = 0
    for reference in references:
        is_ours = isinstance(reference, SubmissionReference | MixReference | SourceReference)
        if not (is_ours and reference.availability().here):
            continue
        candidate = reference.load()
        own = settings.of_candidate(candidate)
        kind = runnable_kind(own.chosen_protocol.kind)
        try:
            flags = inspect(candidate, samples.of(candidate), own, kind)
        except BenchError:
            raise
        except FOREIGN_ERRORS as error:
            raise InputError(f"candidate {reference.name}: {raised(error)}") from error
        candidate.module.cpu()  # free the device for other candidates until its turn
        size = tensor_bytes(candidate.module)
        if held + size <= MOST_BYTES_HELD or not checked:
            checked[reference.name] = candidate, flags
            held += size
    return checked


def check_writable(folder: Path, option: str) -> None:
    """Create a folder, or refuse one that cannot be written.

    Raises:
        InputError: it cannot be created or written; the message names `option`.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK | os.X_OK)
    except OSError as error:
        raise InputError(f"{option}: {folder} cannot be created: {error.strerror}") from error
    if not writable:
        raise InputError(f"{option}: {folder} cannot be written")
