"""Random selections that grow round by round and stop as soon as the interval is narrow enough.

Each round is an ordinary call of the engine with the next samples of the draw and all attacks. The
round's number precedes the keys of its blocks, so that an interrupted run is resumed where it
stopped. Between rounds, the blocks alone decide whether to stop: the same blocks lead to the same
decision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from bench.engines import Engine, Task
from bench.executors.progress import Progress
from bench.executors.stage import Executor
from bench.formatting import duration, percent
from bench.runs.observer import Observer
from bench.runs.settings import Audit
from bench.statistics import anytime_interval
from bench.store.manifest import Selection
from bench.store.records import FAILED, AttackBlock


def run_in_rounds(
    task: Task,
    engine: Engine[Any],
    selection: Selection,
    finished: Mapping[str, Any],
    observer: Observer,
    executor: Executor | None = None,
    audit: Audit | None = None,
) -> Iterator[Any]:
    """Attack the samples of a task, one round after the other.

    Args:
        task: all samples that may be taken, in the order of the draw.
        finished: blocks of an interrupted run by key; they are not computed again.
        executor: does the engine's work.
        audit: asked after each round whether to stop.
    """
    assert selection.round is not None
    assert selection.population is not None
    standing: set[int] = set()
    seconds = 0.0
    total = len(task.labels)
    for number, start in enumerate(range(0, total, selection.round)):
        end = min(start + selection.round, total)
        prefix = f"round-{number:04d}-"
        part = task.part(slice(start, end))
        known = {
            key.removeprefix(prefix): block
            for key, block in finished.items()
            if key.startswith(prefix)
        }
        blocks = dict(known)
        robust = len(standing)
        for block in engine.run(part, known, _shifted(observer.progress, start, robust), executor):
            blocks[block.key] = block
            yield replace(block, key=prefix + block.key)
        standing |= _standing(blocks)
        robust = len(standing)
        seconds += sum(block.seconds for block in blocks.values())
        interval = anytime_interval(robust, end, selection.population)
        reason = _reason_to_stop(selection, interval.width, seconds, number + 1)
        if audit is not None:
            reason = audit.reason_to_stop(task.indices[:end].tolist(), standing) or reason
        observer.notice(
            f"{end} samples: robust {percent(robust / end)}% "
            f"[{percent(interval.low)} – {percent(interval.high)}]" + (reason and f"; {reason}")
        )
        if reason:
            return


def _reason_to_stop(selection: Selection, width: float, seconds: float, rounds: int) -> str:
    """Return why no further round is made; "" if one is made."""
    if selection.until_width is not None and width <= selection.until_width:
        return f"stopped: {percent(width)} points wide"
    budget = selection.budget_seconds
    if budget is not None and seconds + seconds / rounds > budget:
        return f"stopped: {duration(seconds)} spent, another round would exceed the budget"
    return ""


def _standing(blocks: Mapping[str, AttackBlock]) -> set[int]:
    """Return the indices of the samples of a round that are right, unbroken, and did not fail."""
    right: set[int] = set()
    broken: set[int] = set()
    for block in blocks.values():
        if block.clean is not None:
            hits = block.clean.prediction == block.clean.label
            right.update(block.clean.index[hits].tolist())
        if block.witnesses is not None:
            broken.update(block.witnesses.index.tolist())
        if block.attempts is not None:
            broken.update(block.attempts.index[block.attempts.outcome == FAILED].tolist())
    return right - broken


def _shifted(
    report: Callable[[Progress], None], examples: int, robust: int
) -> Callable[[Progress], None]:
    """Return a callback that adds the samples of earlier rounds to the reported progress."""

    def shifted(progress: Progress) -> None:
        report(
            replace(
                progress,
                robust=progress.robust + robust,
                examples=progress.examples + examples,
                seconds_left=None,
            )
        )

    return shifted
