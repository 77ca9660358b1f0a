"""Runs against accepted results, on the same samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bench.claims.accepted import AcceptedResult
from bench.claims.accepted_records import AcceptedRecords
from bench.claims.accepted_samples import (
    AcceptedCertification,
    RadiiOfSamples,
    SampleOutcomes,
    accepted_certification,
    sample_outcomes,
)
from bench.claims.certified_check import RADIUS_SPREAD, compare_mean_radius
from bench.claims.comparison import Check
from bench.claims.measured import Quantity, entry, measured_value, spread_of
from bench.claims.verdict import ATTACK_SPREAD, Verdict, compare_same_samples
from bench.statistics import exact_binomial_interval
from bench.store import Store
from bench.store.summary import AttackedSummary, CertifiedSummary, Summary, ranked

EXPRESS = "express"
"""The engine whose robust accuracy is an upper bound."""
SAMPLES_ONLY = frozenset({"n_examples", "every"})
"""Overrides that only choose samples."""

_Values = NDArray[Any]


@dataclass(frozen=True)
class _Evaluation:
    """An accepted evaluation, whichever of the files keeps it.

    Attributes:
        row: its record.
        precision: of the engine; "" if the record does not tell.
        n: number of samples.
        step: 1 for the first samples of the data set, k for every k-th.
        numbers: the accuracies by name, fractions.
        samples: what became of its samples; None: no file keeps it.
    """

    row: AcceptedResult | SampleOutcomes
    precision: str
    n: int
    step: int
    numbers: Sequence[tuple[Quantity, float]]
    samples: SampleOutcomes | None


def accepted_checks(store: Store, records: AcceptedRecords, suite: str | None) -> Iterator[Check]:
    """Compare runs with accepted results: evaluations, express ones too, and certifications.

    Args:
        suite: only results under the suite of this name; None: under any, which need not ship.
    """

    @cache
    def runs_of(name: str) -> list[Summary]:
        return store.summaries(name)

    for accepted in _evaluations(records):
        if suite in (None, accepted.row.suite):
            runs = [run for run in runs_of(accepted.row.suite) if isinstance(run, AttackedSummary)]
            yield from _check_evaluation(store, accepted, runs)
    for row in records.certifications:
        if suite in (None, row.suite):
            certified = [run for run in runs_of(row.suite) if isinstance(run, CertifiedSummary)]
            yield from _check_certification(store, row, certified)


def _evaluations(records: AcceptedRecords) -> Iterator[_Evaluation]:
    samples = {_place(row): row for row in records.samples}
    for row in records.results:
        yield _Evaluation(
            row,
            row.precision,
            row.n_examples,
            1,
            [
                ("clean", row.clean_accuracy),
                ("AutoAttack", row.autoattack_accuracy),
                ("robust", row.robust_accuracy),
            ],
            samples.get(_place(row)),
        )
    with_result = {_place(row) for row in records.results}
    for kept in records.samples:
        if _place(kept) in with_result:
            continue
        robust: Quantity = "express" if kept.engine == EXPRESS else "robust"
        yield _Evaluation(
            kept,
            "",
            len(kept.clean),
            kept.step,
            [
                ("clean", float(kept.standing("clean").mean())),
                (robust, float(kept.standing("robust").mean())),
            ],
            kept,
        )


def _place(row: AcceptedResult | SampleOutcomes) -> tuple[str, str, str]:
    return row.suite, row.candidate, row.run


def _check_evaluation(
    store: Store, accepted: _Evaluation, runs: Sequence[AttackedSummary]
) -> Iterator[Check]:
    """Yield the numbers of an accepted run beside those of the newest run on the same samples.

    Of both runs it is the robust accuracy of their own protocol: attacks beyond it say nothing of
    what moved since.
    """
    row = accepted.row
    if row.engine == EXPRESS:
        runs = [run for run in runs if run.manifest.engine == EXPRESS]
    else:
        runs = ranked(runs)
    run = _counterpart(accepted, runs)
    for quantity, accuracy in accepted.numbers:
        measured = None if run is None else measured_value(store, run, quantity)
        verdict = Verdict("not measured", _other_samples(accepted, runs) if run is None else "")
        if run is not None and measured is not None:
            n = run.n_examples
            pair = _pair(store, accepted, run, quantity)
            net = round((measured - accuracy) * n)
            lost, gained = pair or (max(-net, 0), max(net, 0))
            spread = spread_of(quantity, run, runs)
            verdict = replace(
                compare_same_samples(lost, gained, n, spread, paired=pair is not None),
                interval=exact_binomial_interval(round(measured * n), n),
            )
        source = f"accepted run {row.run} of {row.finished}"
        yield entry(row.suite, row.candidate, quantity, source, accuracy, verdict, run, measured)


def _counterpart(accepted: _Evaluation, runs: Sequence[AttackedSummary]) -> AttackedSummary | None:
    """Return the newest run of an accepted candidate, preferably by the same engine and seed.

    Its weights may differ: the check asks whether a change of weights moved a number.
    """
    row = accepted.row
    same = [
        run
        for run in runs
        if run.manifest.candidate == row.candidate
        and run.manifest.suite_version == row.suite_version
        and run.manifest.protocol == row.protocol
        and _has_samples(run, accepted.n, accepted.step)
        and run.manifest.overrides.keys() <= SAMPLES_ONLY
    ]

    def nearness(run: AttackedSummary) -> tuple[bool, bool, str]:
        manifest = run.manifest
        precision = accepted.precision or manifest.precision
        engine = (manifest.engine, manifest.precision) == (row.engine, precision)
        return engine, manifest.seed == row.seed, run.finished

    return max(same, key=nearness, default=None)


def _has_samples(run: Summary, n: int, step: int) -> bool:
    """Return whether a run is of n samples: the data set's first, or every `step`-th."""
    selection = run.manifest.selection
    in_order = selection.kind in ("all", "first", "every")
    return in_order and (selection.step or 1) == step and run.n_examples == n


def _other_samples(accepted: _Evaluation, runs: Sequence[AttackedSummary]) -> str:
    """Say that the candidate was measured on other samples; return "" if it was not measured."""
    candidate = accepted.row.candidate
    sizes = {run.n_examples for run in runs if run.manifest.candidate == candidate} - {accepted.n}
    if not sizes:
        return ""
    which = f"the first {accepted.n}" if accepted.step == 1 else f"every {accepted.step}th"
    return f"measured on {max(sizes)} samples; the accepted number is of {which}"


def _pair(
    store: Store, accepted: _Evaluation, run: AttackedSummary, quantity: Quantity
) -> tuple[int, int] | None:
    """Return the numbers of samples lost and gained since the accepted run; None if unknown."""
    before = accepted.samples or _stored(store, accepted.row, run)
    if before is None:
        return None
    numbers = dict(accepted.numbers)
    if quantity == "AutoAttack" and not (
        numbers["robust"] == numbers["AutoAttack"]
        and run.robust_accuracy == run.autoattack_accuracy
    ):
        return None  # the tables record the accuracy after all attacks, not after some
    after = sample_outcomes(run, store.folder(run.manifest).samples())
    column: Literal["clean", "robust"] = "clean" if quantity == "clean" else "robust"
    return _changes(before.standing(column), after.standing(column))


def _stored(
    store: Store, row: AcceptedResult | SampleOutcomes, run: AttackedSummary
) -> SampleOutcomes | None:
    """Return the samples of an accepted run that is in the store, on the same data as `run`."""
    for before in ranked(store.summaries(row.suite, row.candidate)):
        if before.run == row.run and before.manifest.dataset == run.manifest.dataset:
            return sample_outcomes(before, store.folder(before.manifest).samples())
    return None


def _changes(before: NDArray[np.bool_], after: NDArray[np.bool_]) -> tuple[int, int]:
    """Return how many samples (n,) fell and how many rose."""
    return int((before & ~after).sum()), int((after & ~before).sum())


def _check_certification(
    store: Store, row: AcceptedCertification, runs: Sequence[CertifiedSummary]
) -> Iterator[Check]:
    """Yield the numbers of an accepted certification beside those of the newest one like it.

    The threat model's radius is the run's, so that its accuracy is compared where there is a run.
    """
    same = [run for run in runs if _is_like(run, row)]
    run = max(same, key=lambda run: (run.manifest.seed == row.seed, run.finished), default=None)
    before, after = row.certificates(), None
    numbers: dict[str, Callable[[RadiiOfSamples], _Values]] = {
        "right by votes": lambda radii: radii.at(0.0),
        "average certified radius": lambda radii: radii.counted,
    }
    if run is not None:
        samples = store.folder(run.manifest).samples()
        after = accepted_certification(run, samples, {}).certificates()
        eps = run.manifest.threat_model.eps
        numbers[f"certified accuracy at {eps:.2f}"] = lambda radii: radii.at(eps)
    for name, values_of in numbers.items():
        old, new = values_of(before), None if after is None else values_of(after)
        if new is None:
            verdict = Verdict("not measured", _other_draws(row, runs))
        else:
            verdict = _compare_certified(old, new)
        yield entry(
            row.suite,
            row.candidate,
            f"{name}, sigma {row.sigma:.2f}",
            f"accepted run {row.run} of {row.finished}",
            float(old.mean()),
            verdict,
            run,
            None if new is None else float(new.mean()),
        )


def _compare_certified(old: _Values, new: _Values) -> Verdict:
    """Compare what each sample (n,) counts: its radius, or whether it stands."""
    n = len(old)
    if old.dtype == np.bool_:
        verdict = compare_same_samples(*_changes(old, new), n, ATTACK_SPREAD)
        return replace(verdict, interval=exact_binomial_interval(int(new.sum()), n))
    differences = new - old
    return compare_mean_radius(
        float(differences.mean()), RADIUS_SPREAD, float(differences.std()) / math.sqrt(n)
    )


def _is_like(run: CertifiedSummary, row: AcceptedCertification) -> bool:
    """Return whether a certification is one of the accepted candidate, drawn alike."""
    manifest = run.manifest
    return (
        manifest.candidate == row.candidate
        and manifest.suite_version == row.suite_version
        and manifest.protocol == row.protocol
        and _draws(run) == (row.sigma, row.noise_samples, row.procedure)
        and _has_samples(run, row.n_examples, row.step)
        and "eps" not in manifest.overrides
    )


def _draws(run: CertifiedSummary) -> tuple[float, int, str] | None:
    """Return how a run drew noise; None for an imported log, which does not say."""
    if run.kind.is_imported:
        return None
    settings = run.manifest.engine_settings
    return float(settings["sigma"]), int(settings["noise_samples"]), str(settings["procedure"])


def _other_draws(row: AcceptedCertification, runs: Sequence[CertifiedSummary]) -> str:
    """Say that the candidate was certified otherwise; return "" if it was not."""
    others = [run for run in runs if run.manifest.candidate == row.candidate]
    drawn = {draws for run in others if (draws := _draws(run)) is not None}
    if not drawn:
        return ""
    sigma, noise_samples, procedure = max(drawn)
    return (
        f"certified with sigma {sigma:g}, {noise_samples} draws, {procedure}, on "
        f"{max(run.n_examples for run in others)} samples; the accepted number is with sigma "
        f"{row.sigma:g}, {row.noise_samples} draws, {row.procedure}, on {row.n_examples}"
    )
