"""The certified leaderboard: the certified accuracy of each classifier beside its attacked one."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bench.certification.accuracy import RADII
from bench.errors import InputError
from bench.formatting import count, percent, selection
from bench.pages.mixes import base_weights
from bench.store import RunFolder, Store
from bench.store.manifest import Manifest
from bench.store.records import FloatArray
from bench.store.same_candidate import same_candidate
from bench.store.summary import CertifiedSummary, Summary

GRID_STEP = 0.01
"""Distance of the radii at which curves are drawn."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CertifiedEntry:
    """An entry: the newest certification or imported log of a classifier.

    Attributes:
        summary: the run's summary.
        radii: (n_right,) certified radii of the samples that are right, ascending.
        attacked: the newest full evaluation by attacks of the same weights, under the suite's
            threat model; None: there is none.
    """

    summary: CertifiedSummary
    radii: FloatArray
    attacked: Summary | None

    @property
    def manifest(self) -> Manifest:
        """The run's manifest."""
        return self.summary.manifest

    @property
    def method(self) -> str:
        """The candidate's name without its sigma, shared by runs with several sigmas."""
        digits = f"{self.summary.certified.sigma:g}"
        number = re.escape(digits) + ("0*" if "." in digits else r"(\.0+)?")
        name = self.manifest.candidate
        return re.sub(rf"[-_ ]*(sigma|noise)?[-_= ]*(?<![\d.]){number}(?![\d.])", "", name) or name

    @property
    def training_seed(self) -> object:
        """The seed of the classifier's training, as its submission says; None: it does not."""
        return (self.manifest.information.get("training") or {}).get("seed")

    @property
    def is_imported(self) -> bool:
        """Whether somebody else certified it."""
        return self.summary.kind.is_imported

    @property
    def origin(self) -> str:
        """How it was certified, or the source of the log."""
        settings = self.manifest.engine_settings
        if self.is_imported:
            source = str(self.manifest.information.get("source") or "no source named")
            return f"imported log: {source}"
        return (
            f"{settings.get('procedure')}, failure probability "
            f"{settings.get('failure_probability')}, {self.manifest.precision}, seed "
            f"{self.manifest.seed}"
        )

    @property
    def samples(self) -> str:
        """The samples, in words."""
        manifest = self.manifest
        return selection(manifest.selection, manifest.dataset.size, self.summary.n_examples)

    @property
    def average_radius_interval(self) -> tuple[float, float]:
        """The 95% interval of the average certified radius, by its standard error.

        Radii beyond what the draws can prove do not occur, so that the normal approximation holds
        from a few dozen samples on.
        """
        n = self.summary.n_examples
        mean = float(self.radii.sum()) / n
        variance = max(float((self.radii**2).sum()) / n - mean**2, 0.0)
        margin = 1.96 * float(np.sqrt(variance / n))
        return max(mean - margin, 0.0), mean + margin

    def accuracy_at(self, radius: float) -> float:
        """Return the share of all samples that are right with a certified radius >= `radius`."""
        beyond = len(self.radii) - int(np.searchsorted(self.radii, radius, side="left"))
        return beyond / self.summary.n_examples

    def curve(self, grid: FloatArray) -> FloatArray:
        """Return the certified accuracy at each radius of an ascending grid (g,)."""
        beyond = len(self.radii) - np.searchsorted(self.radii, grid, side="left")
        return np.asarray(beyond / self.summary.n_examples, dtype=np.float64)


@dataclass(frozen=True)
class BesideBase:
    """A mix and its robust base alone, certified on the same samples with as many draws.

    Attributes:
        mix: the mix's certification.
        base: the base's.
        eps: radius of the suite's threat model.
    """

    mix: CertifiedEntry
    base: CertifiedEntry
    eps: float

    @property
    def rows(self) -> list[tuple[float, float, float]]:
        """Radii with the certified accuracies of mix and base, as far as one of them reaches."""
        accuracies = [
            (radius, self.mix.accuracy_at(radius), self.base.accuracy_at(radius))
            for radius in sorted({*RADII, self.eps})
        ]
        return [row for row in accuracies if row[1] or row[2]]


@dataclass(frozen=True)
class CertifiedBoard:
    """The certifications of a suite.

    Attributes:
        eps: radius of the suite's threat model, in the [0, 1] pixel scale.
        entries: at least one entry, sorted by descending average certified radius.
    """

    eps: float
    entries: tuple[CertifiedEntry, ...]

    @property
    def columns(self) -> list[float]:
        """The papers' radii besides eps, as far as something is certified there."""
        farthest = self.farthest
        return [radius for radius in RADII if 0 < radius <= farthest and radius != self.eps]

    @property
    def farthest(self) -> float:
        """The largest certified radius of a right sample; 0: nothing is certified."""
        return max(
            (float(entry.radii[-1]) for entry in self.entries if len(entry.radii)), default=0
        )

    @cached_property
    def grid(self) -> FloatArray:
        """Radii from 0 to just beyond the farthest."""
        return np.arange(0.0, self.farthest + 2 * GRID_STEP, GRID_STEP)

    @property
    def labels(self) -> list[str]:
        """The name of each entry's curve, with a distinction if several have the same name."""
        names = [
            f"{entry.method}, \N{GREEK SMALL LETTER SIGMA} {entry.summary.certified.sigma:g}"
            for entry in self.entries
        ]
        return [
            name
            if names.count(name) == 1
            else f"{name}, n {count(entry.summary.n_examples)}, {_draws(entry)}"
            for name, entry in zip(names, self.entries, strict=True)
        ]

    @property
    def methods(self) -> dict[str, list[CertifiedEntry]]:
        """Entries by method, a method's sigmas ascending."""
        found: dict[str, list[CertifiedEntry]] = {}
        for entry in sorted(self.entries, key=lambda each: each.summary.certified.sigma):
            found.setdefault(entry.method, []).append(entry)
        return found

    @property
    def envelopes(self) -> dict[str, FloatArray]:
        """The best certified accuracy at each radius (g,), for each method with several sigmas."""
        return {
            method: np.max([entry.curve(self.grid) for entry in entries], axis=0)
            for method, entries in self.methods.items()
            if len({entry.summary.certified.sigma for entry in entries}) > 1
        }


def certified_board(store: Store, suite: str, eps: float) -> CertifiedBoard | None:
    """Return the certified leaderboard of a suite; None if nothing was certified.

    Runs whose tables cannot be read are left out and logged.

    Args:
        eps: radius of the suite's threat model.
    """
    certifications: dict[str, tuple[CertifiedSummary, RunFolder]] = {}
    evaluations: list[Summary] = []
    for folder in store.runs(suite):
        if not folder.is_complete:
            continue
        try:
            summary = folder.summary()
        except InputError:
            continue  # already reported on the page
        if summary.kind.is_ranked and not summary.is_variant:
            evaluations.append(summary)
        elif isinstance(summary, CertifiedSummary):
            key = _key(summary)
            before = certifications.get(key)
            if before is None or before[0].finished < summary.finished:
                certifications[key] = summary, folder
    entries = []
    for summary, folder in certifications.values():
        try:
            samples = folder.samples()
        except InputError as error:
            _logger.warning("left out of the certified leaderboard: %s", error)
            continue
        right = samples["prediction"] == samples["label"]
        radii = np.sort(samples.loc[right, "radius"].to_numpy(np.float64))
        entries.append(CertifiedEntry(summary, radii, _attacked(summary, evaluations)))
    if not entries:
        return None
    entries.sort(
        key=lambda entry: (-entry.summary.certified.average_certified_radius, _key(entry.summary))
    )
    return CertifiedBoard(eps, tuple(entries))


def beside_base(entries: Sequence[CertifiedEntry], board: CertifiedBoard) -> BesideBase | None:
    """Return the first certification of a mix whose robust base alone was certified likewise.

    Args:
        entries: certifications of one candidate.
        board: where the base's would be.
    """
    for mix in entries:
        described = mix.manifest.information.get("mix") or {}
        wanted = (described.get("definitions") or {}).get("robust")
        for base in board.entries:
            if (
                wanted is not None
                and base.manifest.definition_sha256 == wanted
                and base.manifest.weights_sha256 == base_weights(mix.manifest, "robust")
                and base.manifest.selection == mix.manifest.selection
                and _how_drawn(base) == _how_drawn(mix)
            ):
                return BesideBase(mix, base, board.eps)
    return None


def _how_drawn(entry: CertifiedEntry) -> tuple[object, ...]:
    settings = entry.manifest.engine_settings
    names = ("procedure", "sigma", "noise_samples", "failure_probability")
    return (entry.manifest.precision, *(settings.get(name) for name in names))


def _draws(entry: CertifiedEntry) -> str:
    draws = entry.summary.certified.mean_noise_samples
    if draws is None:
        return "imported"
    return f"{count(draws)} draws"


def _key(summary: Summary) -> str:
    """Return the key of a run's row: everything but repetition, time and machine."""
    manifest, settings = summary.manifest, summary.manifest.engine_settings
    what = (
        manifest.candidate,
        manifest.kind,
        settings.get("sigma"),
        settings.get("procedure"),
        manifest.precision,
        manifest.overrides,
    )
    return json.dumps(what, sort_keys=True, default=str)


def _attacked(summary: Summary, evaluations: Sequence[Summary]) -> Summary | None:
    """Return the newest evaluation of the candidate as it was certified."""
    manifest = summary.manifest
    if not manifest.weights_sha256:
        return None
    same = [
        each
        for each in evaluations
        if each.manifest.candidate == manifest.candidate
        and same_candidate(each.manifest, manifest)
        and each.manifest.threat_model == manifest.threat_model
    ]
    return max(same, key=lambda each: each.finished, default=None)


def describe(board: CertifiedBoard) -> str:
    """Describe the board in one sentence, the text alternative of the drawing."""
    names = ", ".join(
        f"{entry.manifest.candidate} (sigma {entry.summary.certified.sigma:g}) ACR "
        f"{entry.summary.certified.average_certified_radius:.3f}, "
        f"{percent(entry.summary.clean_accuracy)}% at radius 0"
        for entry in board.entries[:8]
    )
    more = f" and {len(board.entries) - 8} more" if len(board.entries) > 8 else ""
    return f"Certified accuracy against L2 radius: {names}{more}."
