"""Compare results with published numbers, each of which serves as a regression test."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal

from bench.claims.accepted import AcceptedResult, load_accepted
from bench.claims.certified_check import certified_checks
from bench.claims.claims import Claim, claims_for
from bench.claims.comparison import Check
from bench.claims.verdict import (
    ATTACK_SPREAD,
    CLEAN_SPREAD,
    PRINTED_ROUNDING,
    Published,
    Verdict,
    compare_same_samples,
    compare_with_sample,
)
from bench.data import named_dataset
from bench.statistics import exact_binomial_interval
from bench.store import Store
from bench.store.best_known import best_known
from bench.store.same_candidate import same_candidate
from bench.store.summary import AttackedSummary, ranked
from bench.suites import Suite, read_suite, suite_names

Quantity = Literal["clean", "AutoAttack", "robust", "best known"]


def check(
    store: Store,
    suite: str | None = None,
    candidate: str | None = None,
    assume_exchangeable: bool = False,
    accepted: Sequence[AcceptedResult] | None = None,
) -> list[Check]:
    """Compare complete runs with all claims about them.

    Runs that cannot be read are left out and logged.

    Args:
        suite: only claims of this suite.
        candidate: only claims about candidates with this name, pattern or published id.
        assume_exchangeable: treat a run's first n samples as a random sample.
        accepted: earlier results of this project; None: those that ship with the package.

    Raises:
        InputError: an unknown suite, or a wrong claims file.
    """
    store = Store(store.root, skips_unreadable=True)
    definitions = [read_suite(name) for name in ([suite] if suite else suite_names())]
    checks: list[Check] = []
    for definition in definitions:
        runs = ranked(store.summaries(definition.name))
        for claim in claims_for(definition):
            checks += _check_claim(store, definition, claim, runs, assume_exchangeable)
        for row in load_accepted() if accepted is None else accepted:
            if row.suite == definition.name:
                checks += _check_accepted(store, definition, row, runs)
    checks += certified_checks(store, definitions, assume_exchangeable)
    return [each for each in checks if candidate is None or _names(each, candidate)]


def _names(each: Check, wanted: str) -> bool:
    own = each.run.partition("/")[2].partition("@")[0]
    # Models of papers are named by method and architecture; the method alone selects them all.
    method = each.name.partition(" ")[0]
    return any(fnmatch.fnmatchcase(name, wanted) for name in (each.name, own, method))


def _check_claim(
    store: Store,
    suite: Suite,
    claim: Claim,
    runs: Sequence[AttackedSummary],
    assume_exchangeable: bool,
) -> Iterator[Check]:
    """Yield the claimed accuracies of a model beside those of its largest, then newest run."""
    measurements = [
        run
        for run in runs
        if run.manifest.information.get("claim") == claim.model_id
        and run.manifest.threat_model == suite.threat_model
    ]
    run = max(measurements, key=lambda run: (run.n_examples, run.finished), default=None)
    population = suite.n_examples or named_dataset(claim.dataset).test_size
    numbers: list[tuple[Quantity, float | None]] = [
        ("clean", claim.clean_accuracy),
        ("AutoAttack", claim.autoattack_accuracy),
        ("best known", claim.best_known_accuracy),
    ]
    for quantity, accuracy in numbers:
        if accuracy is None:
            continue
        published = Published(accuracy, population, PRINTED_ROUNDING)
        measured = None if run is None else _measured(store, run, quantity)
        verdict = Verdict("not measured")
        if run is not None and measured is not None:
            spread = CLEAN_SPREAD if quantity == "clean" else seed_spread(run, runs)
            verdict = compare_with_sample(
                published,
                round(measured * run.n_examples),
                run.n_examples,
                run.manifest.selection,
                spread,
                assume_exchangeable,
            )
        yield _entry(
            suite.name,
            claim.model_id,
            quantity,
            claim.source,
            accuracy,
            verdict,
            run,
            measured,
            (published.nearest(accuracy), population),
        )


def _check_accepted(
    store: Store, suite: Suite, row: AcceptedResult, runs: Sequence[AttackedSummary]
) -> Iterator[Check]:
    """Yield the numbers of an accepted run beside those of the newest run on the same samples.

    Of both runs it is the robust accuracy of their own protocol: attacks beyond it say nothing of
    what moved since.
    """
    run = _counterpart(row, runs)
    numbers: list[tuple[Quantity, float]] = [
        ("clean", row.clean_accuracy),
        ("AutoAttack", row.autoattack_accuracy),
        ("robust", row.robust_accuracy),
    ]
    for quantity, accuracy in numbers:
        measured = None if run is None else _measured(store, run, quantity)
        verdict = Verdict("not measured", _other_samples(row, runs) if run is None else "")
        if run is not None and measured is not None:
            n = run.n_examples
            spread = CLEAN_SPREAD if quantity == "clean" else seed_spread(run, runs)
            pair = _pair(store, row, run, quantity)
            net = round((measured - accuracy) * n)
            lost, gained = pair or (max(-net, 0), max(net, 0))
            verdict = replace(
                compare_same_samples(lost, gained, n, spread, paired=pair is not None),
                interval=exact_binomial_interval(round(measured * n), n),
            )
        source = f"accepted run {row.run} of {row.finished}"
        yield _entry(
            suite.name, row.candidate, quantity, source, accuracy, verdict, run, measured, None
        )


def _counterpart(row: AcceptedResult, runs: Sequence[AttackedSummary]) -> AttackedSummary | None:
    """Return the newest run of an accepted candidate, preferably by the same engine and seed.

    Its weights may differ: the check asks whether a change of weights moved a number.
    """
    same = [
        run
        for run in runs
        if run.manifest.candidate == row.candidate
        and run.manifest.suite_version == row.suite_version
        and run.manifest.protocol == row.protocol
        and run.n_examples == row.n_examples
        and run.manifest.selection.kind in ("all", "first")
        and set(run.manifest.overrides) <= {"n_examples"}
    ]

    def nearness(run: AttackedSummary) -> tuple[bool, bool, str]:
        manifest = run.manifest
        engine = (manifest.engine, manifest.precision) == (row.engine, row.precision)
        return engine, manifest.seed == row.seed, run.finished

    return max(same, key=nearness, default=None)


def _other_samples(row: AcceptedResult, runs: Sequence[AttackedSummary]) -> str:
    """Say that the candidate was measured on other samples; return "" if it was not measured."""
    sizes = {run.n_examples for run in runs if run.manifest.candidate == row.candidate}
    if not sizes - {row.n_examples}:
        return ""
    return f"measured on {max(sizes)} samples; the accepted number is of the first {row.n_examples}"


def _pair(
    store: Store, row: AcceptedResult, run: AttackedSummary, quantity: Quantity
) -> tuple[int, int] | None:
    """Return the numbers of samples lost and gained since the accepted run; None if unknown."""
    columns = {"clean": "clean_correct", "AutoAttack": "robust", "robust": "robust"}
    before = next(
        (old for old in ranked(store.summaries(row.suite, row.candidate)) if old.run == row.run),
        None,
    )
    if before is None or before.manifest.dataset != run.manifest.dataset:
        return None
    if quantity == "AutoAttack" and any(
        each.robust_accuracy != each.autoattack_accuracy for each in (before, run)
    ):
        return None  # the tables record the accuracy after all attacks, not after some
    old, new = (
        store.folder(each.manifest).samples().set_index("index")[columns[quantity]]
        for each in (before, run)
    )
    return int((old & ~new).sum()), int((new & ~old).sum())


def _measured(store: Store, run: AttackedSummary, quantity: Quantity) -> float | None:
    if quantity == "clean":
        return run.clean_accuracy
    if quantity == "AutoAttack":
        return run.autoattack_accuracy
    if quantity == "robust":
        return run.robust_accuracy
    return best_known(store, run).robust_accuracy


def seed_spread(run: AttackedSummary, runs: Sequence[AttackedSummary]) -> float:
    """Return the spread of the robust accuracy over runs that differ from `run` only in the seed.

    Returns:
        a fraction, at least `ATTACK_SPREAD`.
    """
    found = [
        other.robust_accuracy
        for other in runs
        if _but_for_seed(other) == _but_for_seed(run)
        and same_candidate(other.manifest, run.manifest)
    ]
    return max(max(found, default=0.0) - min(found, default=0.0), ATTACK_SPREAD)


def _but_for_seed(run: AttackedSummary) -> str:
    return run.manifest.model_copy(update={"seed": 0, "repetition": 0}).run


def _entry(
    suite: str,
    name: str,
    quantity: str,
    source: str,
    published: float,
    verdict: Verdict,
    run: AttackedSummary | None,
    measured: float | None,
    claimed_counts: tuple[int, int] | None,
) -> Check:
    held = run is not None and measured is not None
    return Check(
        suite=suite,
        name=name,
        quantity=quantity,
        source=source,
        published=published,
        verdict=verdict,
        run=f"{suite}/{run.manifest.candidate}@{run.run}" if run is not None and held else "",
        measured=measured,
        n=run.n_examples if run is not None and held else None,
        claimed_counts=claimed_counts,
    )
