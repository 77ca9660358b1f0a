"""A sweep: two candidates mixed at many weights, under a cheap attack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pandas as pd

from bench.candidates import Candidate, CandidateReference
from bench.candidates.bases import PREFIX
from bench.candidates.identity import digest
from bench.data import Dataset
from bench.engines import AttackTask, Engine
from bench.engines.acceleration import default_precision
from bench.engines.sweep import SweepEngine, is_final
from bench.errors import InputError
from bench.kinds.sweep import SweepRecords
from bench.runs.kind import RunnableKind, common_fields, task_of
from bench.runs.settings import Settings
from bench.store.manifest import Manifest
from bench.store.records import SweepBlock
from bench.store.summary import Flag, SweepPoint, SweepSummary, best_point
from bench.store.tables import (
    Tables,
    attempt_table,
    concatenate,
    frame,
)
from bench.suites.suite import AttackChoice, Protocol

PROTOCOL = "cheap"
MOST_ALPHAS = 1000
SYNTAX = "<first>:<last>:<step> or <number>,<number>,..., all in [0, 1]"

INSPECTED_ALPHA = 0.5
"""The weight at which a sweep's candidate is inspected, so that both bases run."""


def read_alphas(text: str, option: str) -> tuple[float, ...]:
    """Return the weights in `0:1:0.05` (ends included) or `0.5,0.7`, ascending and unique.

    Raises:
        InputError: the text has another form, or a weight is outside [0, 1]; the message names
            `option`.
    """
    is_range = ":" in text
    try:
        numbers = [Fraction(part.strip()) for part in text.split(":" if is_range else ",")]
    except (ValueError, ZeroDivisionError) as error:
        raise InputError(f"{option}: expected {SYNTAX}; got {text!r}") from error
    if is_range:
        if len(numbers) != 3 or numbers[2] <= 0 or numbers[1] < numbers[0]:
            raise InputError(f"{option}: expected {SYNTAX}, ascending; got {text!r}")
        first, last, step = numbers
        if (last - first) / step >= MOST_ALPHAS:
            raise InputError(f"{option}: expected at most {MOST_ALPHAS} weights, got {text!r}")
        _check_weights((first, last), text, option)
        numbers = [first + step * place for place in range(int((last - first) / step) + 1)]
    _check_weights(numbers, text, option)
    return tuple(sorted({float(number) for number in numbers}))


def _check_weights(numbers: Sequence[Fraction], text: str, option: str) -> None:
    for number in numbers:
        if not 0 <= number <= 1:
            raise InputError(
                f"{option}: expected weights in [0, 1], got {float(number):g} in {text!r}"
            )


def mix_name(
    accurate: str,
    robust: str,
    alpha: float | None = None,
    accurate_scale: float | None = None,
    robust_scale: float | None = None,
) -> str:
    """Return a mix's name as `--candidate` takes it; without alpha, a sweep's name."""
    short = None if alpha is None else f"{alpha:g}"
    exact = short if short is None or float(short) == alpha else repr(alpha)
    given = {
        "accurate": accurate,
        "robust": robust,
        "alpha": exact,
        "accurate_scale": accurate_scale,
        "robust_scale": robust_scale,
    }
    return PREFIX + ",".join(f"{key}={value}" for key, value in given.items() if value is not None)


def sweep_candidate(reference: CandidateReference, name: str) -> Candidate:
    """Return the mix that is swept, at `INSPECTED_ALPHA`.

    Args:
        reference: the mix at that weight.
        name: the sweep's name.

    Raises:
        InputError: the bases do not fit together, or one of them is randomized.
    """
    candidate = reference.load()
    if candidate.randomized:
        raise InputError(
            f"{name}: expected deterministic bases, since a sweep runs them once on each image; "
            "got a randomized one. Run its mixes one by one with `bench run`"
        )
    # The sweep covers all weights; a mix at one weight is another candidate.
    definition = digest({"sweep": candidate.definition_sha256})
    return replace(candidate, name=name, definition_sha256=definition)


def sweep_settings(
    settings: Settings, alphas: Sequence[float], steps: int, targets: int
) -> Settings:
    """Return the settings of a sweep under a suite.

    Args:
        settings: settings of the runs under the full protocol.
        alphas: the weights, ascending.
        steps: number of steps of each search.
        targets: number of target classes of targeted APGD.
    """
    cheap = Protocol(
        kind=Sweep.name,
        attacks=(
            AttackChoice(name="apgd-ce", parameters={"steps": steps}),
            AttackChoice(name="apgd-t", parameters={"steps": steps, "targets": targets}),
        ),
        arguments={"alphas": list(alphas)},
    )
    suite = settings.suite.model_copy(update={"protocols": {PROTOCOL: cheap}})
    return replace(settings, suite=suite, protocol=PROTOCOL)


class Sweep(SweepRecords, RunnableKind):
    """A fixed mix at many weights under a cheap attack; what survives is an upper bound."""

    def engine(self, settings: Settings) -> Engine[AttackTask]:
        """Return the sweep engine for the protocol's weights."""
        precision = settings.precision or default_precision(settings.device)
        return SweepEngine(settings.chosen_protocol.arguments["alphas"], precision)

    def task(
        self, candidate: Candidate, dataset: Dataset, settings: Settings, engine: Engine[Any]
    ) -> AttackTask:
        """Return the mix with the cheap attacks."""
        return AttackTask(
            **vars(task_of(candidate.module, dataset, settings, engine)),
            attacks=settings.chosen_protocol.attacks,
        )

    def attacks(self, task: AttackTask, settings: Settings) -> list[dict[str, Any]]:
        """Return the cheap attacks."""
        return [attack.model_dump(mode="json") for attack in task.attacks]

    def join(self, blocks: Sequence[SweepBlock]) -> Tables:  # type: ignore[override]
        """Return the last blocks' results at all weights, and all witnesses.

        `samples` has one row for each sample and weight, sorted by weight and index. Its column
        `witness` is a row number among the witnesses, which are in the order in which they were
        found.
        """
        blocks = finished_sweeps(blocks)
        samples = frame(block.results for block in blocks if is_final(block))
        samples = samples.sort_values(["alpha", "index"], ignore_index=True)
        attempts = [attempt_table([]).assign(alpha=None)]
        places: dict[tuple[float, int], int] = {}
        for block in blocks:
            alpha = float(block.results.alpha[0])
            if block.attempts is not None:
                # A failed sample has an attempt at each weight.
                weights = block.results.alpha if is_final(block) else alpha
                attempts.append(attempt_table([block.attempts]).assign(alpha=weights))
            if block.witnesses is not None:
                for index in block.witnesses.index.tolist():
                    places[alpha, index] = len(places)
        keys = zip(samples["found_at"].tolist(), samples["index"].tolist(), strict=True)
        samples["witness"] = pd.array([places.get(key) for key in keys], dtype="Int64")
        samples["clean_correct"] = samples["clean_prediction"] == samples["label"]
        samples["robust"] = samples["clean_correct"] & (samples["broken_by"] == "")
        samples["broken_by"] = samples["broken_by"].where(samples["broken_by"] != "", None)
        predicted = samples["adversarial_prediction"].astype("Int64")
        # -1 means no class if there is a witness, and is replaced by null if there is none.
        samples["adversarial_prediction"] = predicted.where(samples["broken_by"].notna())
        found = [block.witnesses for block in blocks if block.witnesses is not None]
        return Tables(
            samples[self.columns.samples.names],
            pd.concat(attempts, ignore_index=True)[self.columns.attempts.names],
            concatenate(found) if found else None,
            self.columns,
        )

    def summarise(
        self,
        manifest: Manifest,
        tables: Tables,
        raised: Sequence[Flag],
        record: Mapping[str, float | str],
        finished: str,
    ) -> SweepSummary:
        """Sum up weight by weight; the accuracies are those of the best point."""
        by_weight = tables.samples.groupby("alpha", sort=True)[["clean_correct", "robust"]].mean()
        points = [
            SweepPoint(alpha=alpha, clean_accuracy=clean, attacked_accuracy=attacked)
            for alpha, clean, attacked in by_weight.itertuples()
        ]
        n = len(tables.samples) // len(points)
        best = best_point(points)
        clean, robust = round(best.clean_accuracy * n), round(best.attacked_accuracy * n)
        return SweepSummary(
            **common_fields(manifest, n, clean, robust, raised, record, finished),
            sweep=points,
            seconds=float(tables.attempts["seconds"].sum()),
        )


def finished_sweeps(blocks: Sequence[SweepBlock]) -> list[SweepBlock]:
    """Leave out searches whose samples were shared out anew after an interruption.

    The samples of those were searched on again in other blocks, from the first weight on.
    """
    finals = {frozenset(each.results.index.tolist()) for each in blocks if is_final(each)}
    return [each for each in blocks if frozenset(each.results.index.tolist()) in finals]
