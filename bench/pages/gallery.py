"""The gallery of a candidate's page: clean image, adversarial image, and their difference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench.pages.candidate_records import CandidateRecords
from bench.pages.pixels import data_address, levels, magnified
from bench.store.gallery import Gallery
from bench.store.records import ImageArray

MOST_BYTES = 1_900_000
"""A gallery's images in a page, which must stay below 3 MB."""

LARGEST_LOSSLESS = 96
"""Images of more rows are compressed with losses in a page; `bench images` writes them exactly."""


@dataclass(frozen=True)
class Card:
    """One broken sample.

    Attributes:
        index: place in the data set.
        label: true class, and `name` its name.
        predicted: name of the class of the adversarial image.
        attack: the attack that broke it.
        step: the step at which it did; None: unknown.
        passes: passes until it did; order[0] is the place among the cards by them.
        clean_confidence, adversarial_confidence: of the predicted classes; None: not recorded.
        clean_weight, adversarial_weight: weights of a mix; None: not recorded.
        distance: largest change of a pixel, in levels of 8 bits, for Linf; the L2 norm for L2.
        clean, adversarial, difference: data: addresses of the images.
    """

    index: int
    label: int
    name: str
    predicted: str
    attack: str
    step: int | None
    passes: float
    clean_confidence: float | None
    adversarial_confidence: float | None
    clean_weight: float | None
    adversarial_weight: float | None
    distance: str
    clean: str
    adversarial: str
    difference: str


@dataclass(frozen=True)
class Cards:
    """The cards of a page.

    Attributes:
        cards: at least one.
        broken: samples that attacks broke in all.
        height: rows of an image.
        magnified: how the differences are scaled, in words.
        lossless: whether the images are exact, but for their 8 bits.
    """

    cards: tuple[Card, ...]
    broken: int
    height: int
    magnified: str
    lossless: bool

    @property
    def attacks(self) -> list[str]:
        """The attacks of the cards, in the order of their first card."""
        return list(dict.fromkeys(card.attack for card in self.cards))

    @property
    def classes(self) -> list[tuple[int, str]]:
        """The true classes of the cards, by number."""
        return sorted({(card.label, card.name) for card in self.cards})


def make_cards(records: CandidateRecords, gallery: Gallery) -> Cards | None:
    """Return the cards that fit into a page; None if there is none.

    Args:
        gallery: the run's stored images.
    """
    if not len(gallery.index):
        return None
    row_of = {index: row for row, index in enumerate(records.samples["index"].tolist())}
    threat = records.manifest.threat_model
    height = gallery.clean.shape[2]
    lossless = height <= LARGEST_LOSSLESS
    cards: list[Card] = []
    size = 0
    for place, index in enumerate(gallery.index.tolist()):
        row = row_of.get(index)
        if row is None:
            continue
        change = gallery.adversarial[place] - gallery.clean[place]
        scale = threat.eps if threat.norm == "Linf" else float(np.abs(change).max())
        shown = [
            data_address(levels(image), lossless)
            for image in (
                gallery.clean[place],
                gallery.adversarial[place],
                magnified(change, scale),
            )
        ]
        size += sum(map(len, shown))
        if size > MOST_BYTES and cards:
            break
        cards.append(_card(records, gallery, place, row, _distance(change, threat.norm), shown))
    if not cards:
        return None
    how = (
        f"scaled so that grey is no change and ±eps is black or white ({_times(threat.eps)})"
        if threat.norm == "Linf"
        else "scaled in each image so that grey is no change and the largest change is black or "
        "white"
    )
    return Cards(tuple(cards), int(records.broken.sum()), height, how, lossless)


def _card(
    records: CandidateRecords,
    gallery: Gallery,
    place: int,
    row: int,
    distance: str,
    shown: Sequence[str],
) -> Card:
    index = int(gallery.index[place])
    label = int(records.labels[row])

    def number(name: str) -> float | None:
        value = float(records.column(name)[row])
        return value if np.isfinite(value) else None

    return Card(
        index=index,
        label=label,
        name=records.class_name(label),
        predicted=records.class_name(int(gallery.prediction[place])),
        attack=str(gallery.attack[place]),
        step=records.steps.get(index),
        passes=float(records.passes[row]),
        clean_confidence=number("clean_confidence"),
        adversarial_confidence=number("adversarial_confidence"),
        clean_weight=number("alpha_clean"),
        adversarial_weight=number("alpha_adversarial"),
        distance=distance,
        clean=shown[0],
        adversarial=shown[1],
        difference=shown[2],
    )


def _times(eps: float) -> str:
    return f"magnified {0.5 / eps:.3g} times"


def _distance(change: ImageArray, norm: str) -> str:
    if norm == "Linf":
        return f"{255 * float(np.abs(change).max(initial=0)):.1f}/255"
    order = 2 if norm == "L2" else 1
    return f"{float(np.linalg.norm(change.astype(np.float64).ravel(), order)):.3f}"
