"""The page of each candidate: all that its records say about it, and images that fool it."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from importlib import resources
from typing import Any, cast

import jinja2
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

from bench.errors import InputError
from bench.pages.addresses import candidate_page
from bench.pages.calibration import attacked_reliability, clean_reliability
from bench.pages.calibration_plot import confidence_plot, reliability_plot
from bench.pages.candidate_records import CandidateRecords
from bench.pages.certified import BesideBase, CertifiedEntry, beside_base, certified_board
from bench.pages.certified_band_plot import certified_band_plot
from bench.pages.class_plot import class_plot, confusion_plot, matrix_height
from bench.pages.command import command_of
from bench.pages.compared_pairs import compared_pairs
from bench.pages.distribution_plot import alpha_plot, margin_plot
from bench.pages.eps_plot import eps_plot
from bench.pages.figures import collecting_figures
from bench.pages.gallery import Cards, make_cards
from bench.pages.leaderboard import Entry, Leaderboard
from bench.pages.marks import mark
from bench.pages.mixes import mix_description, read_mix_samples
from bench.pages.passes import passes_curve
from bench.pages.passes_plot import passes_plot
from bench.pages.per_class import (
    MOST_IN_MATRIX,
    class_accuracies,
    confusion_matrix,
    top_confusions,
)
from bench.pages.sample_columns import sample_columns
from bench.pages.site import Page
from bench.pages.svg import for_both_widths
from bench.pages.waterfall_plot import waterfall_plot
from bench.pages.weight_plot import weight_plot
from bench.store import Store
from bench.store.eps_curve import curve, falling_radii_of
from bench.store.files import safe_name
from bench.store.same_candidate import same_candidate
from bench.store.summary import AttackedSummary, Summary

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Script:
    """A script of a page, and its SHA-256 in base64, by which the page allows it."""

    text: Markup

    @property
    def digest(self) -> str:
        """The digest, as a content security policy writes it."""
        return base64.b64encode(hashlib.sha256(str(self.text).encode()).digest()).decode()


@dataclass(frozen=True)
class Candidate:
    """A candidate's runs under one suite.

    Attributes:
        name: its name.
        entry: the run that the page shows: the ranked one, or else, of those that attacked under
            the suite's threat model, the one with the most images, and then the newest; None: no
            run attacked.
        runs: all its complete runs, newest first.
        certified: its certifications, by descending average radius.
        beside_base: if it is a mix, one of these beside its robust base's alone; None: there is
            no such pair.
    """

    name: str
    entry: Entry | None
    runs: tuple[Summary, ...]
    certified: tuple[CertifiedEntry, ...]
    beside_base: BesideBase | None = None

    @cached_property
    def main(self) -> Summary:
        """The run that the page is about."""
        return self.entry.summary if self.entry else self.runs[0]


def candidate_pages(
    environment: jinja2.Environment, store: Store, board: Leaderboard
) -> Iterator[Page]:
    """Yield the page of each candidate of a leaderboard."""
    for candidate in candidates_of(store, board):
        address = candidate_page(board.suite, candidate.name)
        made_from = _mark(store, board, candidate)
        render = partial(_render, environment, store, board, candidate, address, made_from)
        yield Page(address, render, made_from)


def _mark(store: Store, board: Leaderboard, candidate: Candidate) -> str:
    """Return the mark of a candidate's page.

    Of the leaderboard it covers what the page shows: a page that shows more must add it here.
    """
    runs: list[Summary] = [*candidate.runs]
    if candidate.beside_base is not None:
        runs.append(candidate.beside_base.base.summary)
    pairs = [
        [run.manifest.candidate for run in each] for each in compared_pairs(board, candidate.name)
    ]
    shown = (
        candidate,
        (board.title, board.definition, board.threat_model, len(board.ranked)),
        pairs,
    )
    return mark(shown, [store.folder(run.manifest) for run in runs])


def _render(
    environment: jinja2.Environment,
    store: Store,
    board: Leaderboard,
    candidate: Candidate,
    address: str,
    made_from: str,
) -> str:
    return environment.get_template("candidate_page.html.jinja").render(
        address=address,
        mark=made_from,
        board=board,
        candidate=candidate,
        entry=candidate.entry,
        # Provenance asks only for what summaries of all kinds have.
        origin=candidate.entry or Entry(cast(AttackedSummary, candidate.main)),
        main=candidate.main,
        definition=board.definition,
        reference=_reference(candidate.main),
        command=command_of(candidate.main.manifest),
        page_style=Markup(_static("candidate.css")),
        page_scripts=[Script(Markup(_static("gallery.js")))],
        **_content(store, board.threat_model.eps, candidate),
    )


def figures_of(store: Store, summary: Summary) -> dict[str, Figure]:
    """Return the figures that a page about one run has, by name.

    Args:
        store: where the run is.
        summary: of the run.
    """
    entry = Entry(summary=summary) if isinstance(summary, AttackedSummary) else None
    eps = summary.manifest.threat_model.eps
    board = certified_board(store, summary.manifest.suite, eps)
    certified = [each for each in board.entries if each.summary.run == summary.run] if board else []
    beside = beside_base(certified, board) if board else None
    candidate = Candidate(summary.manifest.candidate, entry, (summary,), tuple(certified), beside)
    with collecting_figures() as found:
        _content(store, eps, candidate)
    return found


def candidates_of(store: Store, board: Leaderboard) -> list[Candidate]:
    """Return the candidates of a leaderboard, ranked ones first."""
    entries = {entry.manifest.candidate: entry for entry in board.ranked}
    for entry in sorted(_unranked(board), key=partial(_precedence, board), reverse=True):
        entries.setdefault(entry.manifest.candidate, entry)
    runs: dict[str, list[Summary]] = {name: [] for name in entries}
    everything: list[Summary] = [*board.others]
    for entry in board.entries:
        everything += [entry.summary, *entry.older]
    for run in sorted(everything, key=lambda run: run.finished, reverse=True):
        runs.setdefault(run.manifest.candidate, []).append(run)
    certified = certified_board(store, board.suite, board.threat_model.eps)
    proven = certified.entries if certified else ()
    found = []
    for name, its in runs.items():
        own = tuple(each for each in proven if each.manifest.candidate == name)
        beside = beside_base(own, certified) if certified else None
        found.append(Candidate(name, entries.get(name), tuple(its), own, beside))
    return found


def _unranked(board: Leaderboard) -> list[Entry]:
    """Return the runs that attacked and are not ranked."""
    attacked = (run for run in board.others if isinstance(run, AttackedSummary))
    own = (Entry(summary=run) for run in attacked if not run.kind.is_imported)
    return [*board.variants, *board.outdated, *own]


def _precedence(board: Leaderboard, entry: Entry) -> tuple[bool, int, str]:
    """Return what decides which run a page is about; the page's is the largest."""
    summary = entry.summary
    as_meant = entry.manifest.threat_model == board.threat_model
    return as_meant, summary.n_examples, summary.finished


def _content(store: Store, eps: float, candidate: Candidate) -> dict[str, Any]:
    """Return what the template shows beyond the summaries; None where the records lack it."""
    notices: list[str] = []
    records = _records(store, candidate, notices)
    content: dict[str, Any] = dict.fromkeys(
        (
            "waterfall", "eps_figure", "eps_source", "passes", "curve", "classes", "class_figure",
            "confusion",
            "confusions", "calibration", "reliability_figure", "confidence_figure",
            "alphas", "margins", "weights", "cards", "certified_figure",
        )
    )  # fmt: skip
    summary = candidate.main
    numbers: dict[str, Any] = {"summary": summary.model_dump(mode="json")}
    if isinstance(summary, AttackedSummary) and summary.attacks:
        content["waterfall"] = for_both_widths(partial(waterfall_plot, summary), "waterfall")
    source = _with_eps_curve(candidate)
    if source is not None:
        content["eps_source"] = source
        content["eps_figure"] = _eps_curve(store, source, numbers, notices)
    if records is not None and records.n:
        content |= _per_sample(records, numbers)
        content["cards"] = _cards(store, records, notices)
        content |= _mix(store, records)
    if candidate.certified:
        attacked = summary if isinstance(summary, AttackedSummary) else None
        content["certified_figure"] = certified_band_plot(
            candidate.certified,
            attacked,
            eps,
            "certified-band",
            candidate.beside_base.base if candidate.beside_base else None,
        )
        numbers["certifications"] = [
            each.summary.model_dump(mode="json") for each in candidate.certified
        ]
    return content | {
        "records": records,
        "notices": notices,
        "numbers": Markup(_json(numbers)),
    }


def _records(store: Store, candidate: Candidate, notices: list[str]) -> CandidateRecords | None:
    summary = candidate.main
    if not isinstance(summary, AttackedSummary):
        return None
    folder = store.folder(summary.manifest)
    try:
        return CandidateRecords(summary, folder.samples(), folder.attempts())
    except InputError as error:
        notices.append(_told(store, error))
        _logger.warning("left out of a candidate's page: %s", error)
        return None


def _with_eps_curve(candidate: Candidate) -> AttackedSummary | None:
    """Return the run whose smallest perturbations are drawn: the main one, or the newest like it.

    It is of the same candidate and in the same norm; None: there is none.
    """
    main = candidate.main
    for run in (main, *candidate.runs):
        if (
            isinstance(run, AttackedSummary)
            and run.eps_curve is not None
            and run.manifest.threat_model.norm == main.manifest.threat_model.norm
            and (run.run == main.run or same_candidate(run.manifest, main.manifest))
        ):
            return run
    return None


def _eps_curve(
    store: Store, summary: AttackedSummary, numbers: dict[str, Any], notices: list[str]
) -> Markup | None:
    """Return accuracy against eps; None if the run did not look for smallest perturbations."""
    try:
        radii = falling_radii_of(store.folder(summary.manifest), summary.manifest.threat_model.eps)
    except InputError as error:
        notices.append(_told(store, error))
        return None
    if radii is None or not len(radii) or summary.eps_curve is None:
        return None
    found = curve(radii)
    numbers["accuracy_against_eps"] = vars(found)
    return for_both_widths(partial(eps_plot, found, summary), "eps-curve")


def _told(store: Store, error: InputError) -> str:
    # Readers of the page need not know where the store lies on this disk.
    return str(error).replace(str(store.root), "results")


def _per_sample(records: CandidateRecords, numbers: dict[str, Any]) -> dict[str, Any]:
    """Return the figures that the tables of samples and attempts allow."""
    content: dict[str, Any] = {}
    spent = passes_curve(records)
    if spent is not None:
        content["curve"] = spent
        content["passes"] = for_both_widths(partial(passes_plot, spent, records.summary), "passes")
        numbers["passes"] = {"passes": spent.passes, "accuracy": spent.accuracy}
    classes = class_accuracies(records)
    content["classes"] = classes
    content["confusions"] = top_confusions(records)
    numbers["classes"] = [vars(each) for each in classes]
    if records.class_count <= MOST_IN_MATRIX:
        matrix = confusion_matrix(records)
        names = [records.class_name(label) for label in range(records.class_count)]
        content["confusion"] = confusion_plot(matrix, names, "confusion")
        content["class_figure"] = class_plot(classes, "classes-plot", matrix_height(names))
        numbers["confusion"] = {"classes": names, "counts": matrix}
    else:
        content["class_figure"] = class_plot(classes, "classes-plot")
    if records.has_confidences:
        clean, attacked = clean_reliability(records), attacked_reliability(records)
        content["calibration"] = (clean, attacked)
        content["reliability_figure"] = for_both_widths(
            partial(reliability_plot, clean, attacked), "reliability"
        )
        right = records.column("clean_confidence")[records.clean_correct]
        wrong = records.column("adversarial_confidence")[records.broken]
        content["confidence_figure"] = for_both_widths(
            partial(confidence_plot, right, wrong), "confidence"
        )
        numbers["calibration"] = {
            name: {**vars(found), "expected_calibration_error": found.error}
            for name, found in (("clean", clean), ("attacked", attacked))
        }
    numbers["samples"] = sample_columns(records)
    return content


def _mix(store: Store, records: CandidateRecords) -> dict[str, Any]:
    mix = mix_description(records.summary)
    samples = read_mix_samples(store, records.summary)
    if not mix or samples is None or not len(samples.alpha_clean):
        return {}
    names = (mix.get("accurate"), mix.get("robust"))
    content: dict[str, Any] = {
        "margins": for_both_widths(partial(margin_plot, samples, names), "margins")
    }
    if mix.get("adaptive"):
        content["alphas"] = for_both_widths(partial(alpha_plot, samples), "alphas")
        content["weights"] = for_both_widths(partial(weight_plot, records), "weights")
    return content


def _cards(store: Store, records: CandidateRecords, notices: list[str]) -> Cards | None:
    try:
        gallery = store.folder(records.manifest).gallery()
    except InputError as error:
        notices.append(_told(store, error))
        return None
    return None if gallery is None else make_cards(records, gallery)


def _reference(summary: Summary) -> str:
    """Return the name by which commands find the run."""
    manifest = summary.manifest
    return f"{manifest.suite}/{safe_name(manifest.candidate)}@{summary.run}"


def _json(numbers: Any) -> str:
    """Return JSON that may stand inside a script element: it holds no character of markup."""
    text = json.dumps(_plain(numbers), separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _plain(value: Any) -> Any:
    """Return JSON's types; numbers that are not finite become null."""
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    return value


def _static(name: str) -> str:
    return (resources.files("bench.pages") / "static" / name).read_text(encoding="utf-8")
