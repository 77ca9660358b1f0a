"""What the records say: runs that are there, comparisons with published numbers, pages."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from bench.api.evaluation import Evaluation, suite_with
from bench.api.origin import Origin
from bench.api.wording import errors_in_python
from bench.errors import InputError
from bench.store import Store

Folder = str | os.PathLike[str]


def load(
    reference: Folder,
    *,
    suite: Folder | None = None,
    results_dir: Folder | None = None,
    data_dir: Folder | None = None,
) -> Evaluation:
    """Return a complete run of the store, or an evaluation that was saved as a file.

    Args:
        reference: SUITE/CANDIDATE[@RUN], without @RUN the newest; or the path of a file.
        suite: the run's, by its path, if it is one of your own.
        results_dir: folder of the records; None: `results`.
        data_dir: folder of the data sets, for what needs the images.

    Raises:
        InputError: there is none, it is not finished, or it is damaged.
    """
    if Path(reference).is_file():
        return Evaluation.load(reference, suite)
    with errors_in_python():
        text = os.fspath(reference)
        if "/" not in text:
            raise InputError(f"expected SUITE/CANDIDATE[@RUN] or a file, got {text!r}")
        store = _store(results_dir)
        summary = store.summary(text)
        origin = Origin(
            suite_with(suite, summary), data_dir=None if data_dir is None else Path(data_dir)
        )
        return Evaluation(summary, store.folder(summary.manifest), origin, reused=True)


def results(
    suite: str | None = None, candidate: str | None = None, *, results_dir: Folder | None = None
) -> pd.DataFrame:
    """Return the complete runs of the store, one row each, the oldest first.

    Args:
        suite, candidate: only runs of these.
        results_dir: folder of the records; None: `results`.

    Returns:
        `suite`, `candidate`, `run`, `kind`, `protocol`, `engine`, `norm`, `eps`, `n_examples`,
        `clean_accuracy`, `robust_accuracy` and its interval `low`, `high`, all in [0, 1];
        `variant`, whether it differs from the suite as defined; `flags`, their names; `finished`;
        `path`.

    Raises:
        InputError: damaged records.
    """
    with errors_in_python():
        store = _store(results_dir)
        rows = []
        for summary in store.summaries(suite, candidate):
            manifest = summary.manifest
            bounds = summary.confidence_intervals["robust_accuracy"]
            rows.append(
                {
                    "suite": manifest.suite,
                    "candidate": manifest.candidate,
                    "run": summary.run,
                    "kind": manifest.kind,
                    "protocol": manifest.protocol,
                    "engine": manifest.engine,
                    "norm": manifest.threat_model.norm,
                    "eps": manifest.threat_model.eps,
                    "n_examples": summary.n_examples,
                    "clean_accuracy": summary.clean_accuracy,
                    "robust_accuracy": summary.robust_accuracy,
                    "low": bounds.low,
                    "high": bounds.high,
                    "variant": summary.is_variant,
                    "flags": ", ".join(each.name for each in summary.flags),
                    "finished": pd.Timestamp(summary.finished),
                    "path": str(store.folder(manifest).path),
                }
            )
        return pd.DataFrame(rows, columns=COLUMNS)


COLUMNS = (
    *("suite", "candidate", "run", "kind", "protocol", "engine", "norm", "eps", "n_examples"),
    *("clean_accuracy", "robust_accuracy", "low", "high", "variant", "flags", "finished", "path"),
)
"""The columns of the table of results."""


def check(
    suite: str | None = None,
    candidate: str | None = None,
    *,
    results_dir: Folder | None = None,
    assume_exchangeable: bool = False,
    accepted: Folder | None = None,
) -> pd.DataFrame:
    """Compare results with published numbers and with accepted ones.

    Args:
        suite, candidate: only claims about these.
        results_dir: folder of the records; None: `results`.
        assume_exchangeable: treat a run's first n samples as a random sample.
        accepted: folder with accepted results that `bench accept` wrote; they count beside this
            project's own.

    Returns:
        one row a claim: the fields of `bench.claims.comparison.Check`, the `verdict` in words, and
        `fails`, whether the result contradicts the claim beyond chance.

    Raises:
        InputError: an unknown suite, no claim about what is named, or damaged records.
    """
    from bench.claims.accepted_records import load_records, together
    from bench.claims.check import check as compare
    from bench.claims.formats import verdict_text

    with errors_in_python():
        records = [load_records(), *([load_records(Path(accepted))] if accepted else [])]
        store = _store(results_dir)
        found = compare(store, suite, candidate, assume_exchangeable, together(records))
        rows = [
            asdict(each) | {"verdict": verdict_text(each), "fails": each.fails} for each in found
        ]
        return pd.DataFrame(rows)


def report(
    suite: str | None = None,
    *,
    results_dir: Folder | None = None,
    out: Folder = "reports",
    figures: Folder | None = None,
) -> Path:
    """Write the site from the records: an index, and self-contained pages of each suite.

    Args:
        suite: only this one's pages; None: all of the store.
        results_dir: folder of the records; None: `results`.
        out: folder for the pages.
        figures: folder for every figure, as SVG and PDF; None: none is written.

    Returns:
        the path of the index.

    Raises:
        InputError: there is no complete run, or `out` cannot be written.
    """
    from bench.pages.build import build_report

    with errors_in_python():
        return build_report(
            _store(results_dir),
            Path(out),
            None if suite is None else [suite],
            None if figures is None else Path(figures),
        )


def _store(results_dir: Folder | None) -> Store:
    return Store(Path(results_dir or "results"))
