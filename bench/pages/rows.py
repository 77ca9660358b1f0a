"""The rows of a suite's leaderboard: measured and published models in one order."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bench.claims import Claim
from bench.claims.measured import seed_spread
from bench.claims.verdict import PRINTED_ROUNDING, Published, Verdict, compare_with_sample
from bench.formatting import count, short_name, web_link
from bench.pages.addresses import candidate_page
from bench.pages.certified import CertifiedBoard, CertifiedEntry
from bench.pages.leaderboard import Entry, Leaderboard
from bench.statistics.intervals import Interval
from bench.store.manifest import Manifest
from bench.store.selection import interval_of
from bench.store.summary import AttackedSummary, Flag, Summary

RowKind = Literal["full", "partial", "express", "certified", "published"]
FAMILIES = (
    "PreActResNet",
    "WideResNet",
    "ResNeXt",
    "ResNeSt",
    "ResNet",
    "ConvNeXt",
    "Swin",
    "XCiT",
    "DeiT",
    "ViT",
    "DenseNet",
    "VGG",
    "AlexNet",
    "CNN",
)
"""Architectures with parameters left out; one that is part of another's name comes later."""
MIX_FAMILY, OTHER_FAMILY = "Mix", "Other"


@dataclass(frozen=True)
class Value:
    """An accuracy in [0, 1] with its 95% interval; None where it is not measured."""

    fraction: float | None = None
    interval: Interval | None = None

    @property
    def interval_text(self) -> str:
        """The interval in percent, as in "10.2 to 25.8"; empty without one."""
        if self.interval is None:
            return ""
        return f"{100 * self.interval.low:.1f} to {100 * self.interval.high:.1f}"


@dataclass(frozen=True)
class Row:
    """A measured or a published model.

    Attributes:
        key: unique on the page; a drawing's marks have it too.
        kind: `full` runs are ranked. `partial` runs took a part of the images, `express` runs and
            `certified` ones are bounds: from above and from below. `published` ones are claims.
        name: the candidate, or the published model.
        rank: among the full runs; of a published model among the published ones.
        address: of the candidate's page, from the suite's; of a published model's paper.
        clean, autoattack, best, certified: accuracies. `best` is the lowest robust accuracy known.
        published: the published best-known accuracy of the same model; None: there is none.
        verdict: how the two compare.
        flags: reasons to doubt the numbers.
        additional_data: whether data beyond the training set was used; None: not known.
        architecture, venue: empty where not known.
        seconds, passes: time of the attacks or the certification, and passes for each image.
        n: number of images; None for a published model.
        samples: which images, where these are not all.
        entry, claim: what the row was made of.
    """

    key: str
    kind: RowKind
    name: str
    rank: int | None = None
    address: str = ""
    clean: Value = Value()
    autoattack: Value = Value()
    best: Value = Value()
    certified: Value = Value()
    published: float | None = None
    verdict: Verdict | None = None
    flags: tuple[Flag, ...] = ()
    unreliable: bool = False
    additional_data: bool | None = None
    architecture: str = ""
    family: str = OTHER_FAMILY
    venue: str = ""
    seconds: float | None = None
    passes: float | None = None
    n: int | None = None
    samples: str = ""
    entry: Entry | None = None
    claim: Claim | None = None

    @property
    def place(self) -> float:
        """The robust accuracy by which rows are ordered; a certified one is a lower bound."""
        value = self.certified if self.kind == "certified" else self.best
        return value.fraction or 0.0

    @property
    def height(self) -> Value:
        """The robust accuracy that is drawn."""
        return self.certified if self.kind == "certified" else self.best

    @property
    def gap(self) -> float | None:
        """Measured minus published best-known accuracy."""
        if self.published is None or self.best.fraction is None or self.kind == "published":
            return None
        return self.best.fraction - self.published

    @property
    def is_flagged(self) -> bool:
        """Whether there is a reason to doubt the numbers."""
        return bool(self.flags) or self.unreliable

    @property
    def sources(self) -> str:
        """The words by which the row is filtered."""
        words: list[str] = [self.kind]
        if self.kind != "published":
            words.append("measured")
            if self.claim is not None:
                words.append("published")
        return " ".join(words)

    @property
    def text(self) -> str:
        """Everything that a text filter finds, in small letters."""
        paper = self.claim.paper if self.claim else ""
        parts = (self.name, self.architecture, self.venue, paper, *(f.name for f in self.flags))
        return " ".join(part for part in parts if part).lower()


def leaderboard_rows(board: Leaderboard, certified: CertifiedBoard | None) -> list[Row]:
    """Return the rows of a leaderboard, best robust accuracy first.

    A published model is left out where a full run of it stands in its place.

    Args:
        certified: certifications of the suite's candidates; None: there are none.
    """
    runs = [entry.summary for entry in board.entries]
    certificates = _certificates(certified)
    kinds: tuple[tuple[RowKind, Sequence[Entry]], ...] = (
        ("full", board.ranked),
        ("partial", board.partial),
        ("express", board.express),
    )
    rows = [
        _measured_row(board, entry, kind, f"{kind[0]}{number}", runs, certificates)
        for kind, entries in kinds
        for number, entry in enumerate(entries)
    ]
    attacked = {row.name for row in rows if row.kind == "full"}
    rows += [
        _certified_row(board, entry, certified.eps, f"c{number}")
        for number, entry in enumerate(certified.entries if certified else ())
        if certified is not None and entry.manifest.candidate not in attacked
    ]
    measured = {row.claim.model_id for row in rows if row.claim and row.kind == "full"}
    rows += [
        _published_row(claim, board.published, f"p{number}")
        for number, claim in enumerate(board.published)
        if claim.model_id not in measured
    ]
    return sorted(rows, key=lambda row: (-row.place, -(row.clean.fraction or 0), row.name))


def families(rows: Sequence[Row]) -> list[str]:
    """Return the architecture families of rows, the most frequent first."""
    names = [row.family for row in rows]
    return sorted(set(names), key=lambda name: (-names.count(name), name))


def family(architecture: str) -> str:
    """Return the architecture without its size, such as WideResNet for WideResNet-34-10."""
    parts = [part for part in architecture.split(" + ") if part.lower() != "convstem"]
    if len(parts) > 1:
        return MIX_FAMILY
    letters = re.sub(r"[^a-z0-9]", "", architecture.lower())
    return next((name for name in FAMILIES if name.lower() in letters), OTHER_FAMILY)


def _measured_row(
    board: Leaderboard,
    entry: Entry,
    kind: RowKind,
    key: str,
    runs: Sequence[AttackedSummary],
    certificates: Mapping[str, Value],
) -> Row:
    summary, claim = entry.summary, entry.claim
    passes = sum(done.forward_passes + done.backward_passes for done in summary.attacks)
    published = claim.best_known_accuracy if claim else None
    described = _described(entry.manifest)
    return Row(
        key=key,
        kind=kind,
        name=entry.manifest.candidate,
        rank=entry.rank,
        address=_page_of(board, entry.manifest),
        clean=Value(summary.clean_accuracy, entry.interval("clean_accuracy")),
        autoattack=Value(summary.autoattack_accuracy, entry.interval("autoattack_accuracy")),
        best=_best(entry),
        certified=certificates.get(entry.manifest.candidate, Value()),
        published=published,
        verdict=None if published is None else _verdict(board, entry, published, runs),
        flags=tuple(summary.flags),
        additional_data=entry.additional_data or described["additional_data"],
        architecture=described["architecture"] or (claim.architecture if claim else ""),
        family=described["family"] or family(claim.architecture if claim else ""),
        venue=described["venue"] or (claim.venue if claim else ""),
        seconds=summary.seconds,
        passes=passes / summary.n_examples if summary.n_examples else None,
        n=summary.n_examples,
        samples=_samples(board, summary),
        entry=entry,
        claim=claim,
    )


def _certified_row(board: Leaderboard, entry: CertifiedEntry, eps: float, key: str) -> Row:
    summary = entry.summary
    described = _described(entry.manifest)
    return Row(
        key=key,
        kind="certified",
        name=entry.manifest.candidate,
        address=_page_of(board, entry.manifest),
        clean=Value(summary.clean_accuracy, _interval(summary, summary.clean_accuracy)),
        certified=_certified(entry, eps),
        flags=tuple(summary.flags),
        additional_data=described["additional_data"],
        architecture=described["architecture"],
        family=described["family"],
        venue=described["venue"],
        seconds=None if entry.is_imported else summary.seconds,
        passes=summary.certified.mean_noise_samples,
        n=summary.n_examples,
        samples=_samples(board, summary),
    )


def _published_row(claim: Claim, published: Sequence[Claim], key: str) -> Row:
    best = claim.best_known_accuracy
    return Row(
        key=key,
        kind="published",
        name=claim.model_id,
        rank=1 + sum((other.best_known_accuracy or 0) > (best or 0) for other in published),
        address=web_link(claim.link) or "",
        clean=Value(claim.clean_accuracy),
        autoattack=Value(claim.autoattack_accuracy),
        best=Value(best),
        unreliable=claim.unreliable is True,
        additional_data=claim.additional_data,
        architecture=claim.architecture,
        family=family(claim.architecture),
        venue=claim.venue,
        claim=claim,
    )


def _page_of(board: Leaderboard, manifest: Manifest) -> str:
    return candidate_page(board.suite, manifest.candidate)


def _described(manifest: Manifest) -> dict[str, Any]:
    """Return what a manifest says of its candidate, as far as it has the expected types."""
    information = manifest.information
    location = information.get("architecture")
    architecture = short_name(location) or (location if isinstance(location, str) else "")
    paper = information.get("paper")
    venue = paper.get("venue") if isinstance(paper, Mapping) else None
    extra = information.get("additional_data")
    return {
        "architecture": architecture,
        "family": MIX_FAMILY
        if information.get("mix")
        else family(architecture)
        if architecture
        else "",
        "venue": venue if isinstance(venue, str) else "",
        "additional_data": extra if isinstance(extra, bool) else None,
    }


def _best(entry: Entry) -> Value:
    summary = entry.summary
    if entry.best_accuracy == summary.robust_accuracy:
        return Value(summary.robust_accuracy, entry.interval("robust_accuracy"))
    return Value(entry.best_accuracy, _interval(summary, entry.best_accuracy))


def _interval(summary: Summary, fraction: float) -> Interval:
    n = summary.n_examples
    return interval_of(summary.manifest.selection, round(fraction * n), n)


def _certified(entry: CertifiedEntry, eps: float) -> Value:
    fraction = entry.accuracy_at(eps)
    return Value(fraction, _interval(entry.summary, fraction))


def _certificates(certified: CertifiedBoard | None) -> dict[str, Value]:
    """Return the best certified accuracy at the suite's radius of each candidate's full runs."""
    found: dict[str, Value] = {}
    for entry in certified.entries if certified else ():
        if certified is None or entry.attacked is None or entry.summary.is_variant:
            continue
        value = _certified(entry, certified.eps)
        known = found.get(entry.manifest.candidate)
        if known is None or (known.fraction or 0) < (value.fraction or 0):
            found[entry.manifest.candidate] = value
    return found


def _verdict(
    board: Leaderboard, entry: Entry, published: float, runs: Sequence[AttackedSummary]
) -> Verdict:
    """Return the verdict of `bench check` on this run."""
    summary = entry.summary
    whole = (board.definition and board.definition.n_examples) or entry.manifest.dataset.size
    return compare_with_sample(
        Published(published, whole, PRINTED_ROUNDING),
        round(entry.best_accuracy * summary.n_examples),
        summary.n_examples,
        entry.manifest.selection,
        seed_spread(summary, runs),
    )


def _samples(board: Leaderboard, summary: Summary) -> str:
    """Return "100 of 10,000" for a part of the images, and "" for all of them."""
    whole = (board.definition and board.definition.n_examples) or summary.manifest.dataset.size
    taken = summary.n_examples
    if not summary.is_variant or taken >= whole:
        return ""
    return f"{count(taken)} of {count(whole)}"
