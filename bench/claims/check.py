"""Compare results with published and accepted numbers, each of which is a regression test."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Sequence
from dataclasses import replace

from bench.claims.accepted_check import accepted_checks
from bench.claims.accepted_records import AcceptedRecords, load_records
from bench.claims.certified_check import certified_checks
from bench.claims.claims import Claim, claims_for
from bench.claims.comparison import Check
from bench.claims.measured import Quantity, entry, measured_value, spread_of
from bench.claims.verdict import PRINTED_ROUNDING, Published, Verdict, compare_with_sample
from bench.data import named_dataset
from bench.errors import InputError
from bench.store import Store
from bench.store.summary import AttackedSummary, ranked
from bench.suites import Suite, read_suite, suite_names


def check(
    store: Store,
    suite: str | None = None,
    candidate: str | None = None,
    assume_exchangeable: bool = False,
    accepted: AcceptedRecords | None = None,
    require: Sequence[str] = (),
) -> list[Check]:
    """Compare complete runs with all claims about them.

    Runs that cannot be read are left out and logged.

    Args:
        suite: only claims of this suite, by name or path.
        candidate: only claims about candidates with this name, published id, SUITE/NAME or pattern.
        assume_exchangeable: treat a run's first n samples as a random sample.
        accepted: earlier results; None: those of this project that ship with the package.
        require: names of candidates, likewise; a number about these that is not measured fails.

    Raises:
        InputError: an unknown suite, a wrong claims file, or no number at all about what is named.
    """
    store = Store(store.root, skips_unreadable=True)
    definitions = [read_suite(name) for name in ([suite] if suite else suite_names())]
    checks: list[Check] = []
    for definition in definitions:
        runs = ranked(store.summaries(definition.name))
        for claim in claims_for(definition):
            checks += _check_claim(store, definition, claim, runs, assume_exchangeable)
    only = definitions[0].name if suite else None
    checks += accepted_checks(store, load_records() if accepted is None else accepted, only)
    checks += certified_checks(store, definitions, assume_exchangeable)
    found = [each for each in checks if candidate is None or _names(each, candidate)]
    if not found:
        raise InputError(_nothing_about([name for name in (suite, candidate) if name]))
    for name in require:
        if not any(_names(each, name) for each in found):
            raise InputError(_nothing_about([name]))
    return [
        replace(each, is_required=any(_names(each, name) for name in require)) for each in found
    ]


def _nothing_about(names: Sequence[str]) -> str:
    return (
        f"no published or accepted number about {' and '.join(names)}; `bench check --plan` lists "
        "them all, `bench accept` keeps your own"
    )


def _names(each: Check, wanted: str) -> bool:
    own = each.run.partition("/")[2].partition("@")[0]
    # Models of papers are named by method and architecture; the method alone selects them all.
    method = each.name.partition(" ")[0]
    names = each.name, own, method, f"{each.suite}/{each.name}"
    return any(fnmatch.fnmatchcase(name, wanted) for name in names)


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
        measured = None if run is None else measured_value(store, run, quantity)
        verdict = Verdict("not measured")
        if run is not None and measured is not None:
            verdict = compare_with_sample(
                published,
                round(measured * run.n_examples),
                run.n_examples,
                run.manifest.selection,
                spread_of(quantity, run, runs),
                assume_exchangeable,
            )
        yield entry(
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
