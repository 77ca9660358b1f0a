"""Pictures of the samples on which candidates differ, from the galleries of their runs."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bench.errors import InputError
from bench.pages.comparison import Differing, RunComparison
from bench.pages.gallery import LARGEST_LOSSLESS
from bench.pages.pixels import data_address, levels
from bench.store import Store
from bench.store.gallery import Gallery

MOST_BYTES = 600_000
"""All pictures in a page: a site has many such pages."""


@dataclass(frozen=True)
class Pictures:
    """Pictures as data: addresses.

    Attributes:
        clean: without attack, by the samples' places in the data set.
        adversarial: by the run's place and the sample's.
    """

    clean: dict[int, str] = field(default_factory=dict)
    adversarial: dict[tuple[int, int], str] = field(default_factory=dict)


def read_galleries(store: Store, comparison: RunComparison) -> dict[int, Gallery]:
    """Return the galleries that the runs have kept, by the run's place; damaged ones are left out.

    Runs of earlier releases have none.
    """
    found = {}
    for place, run in enumerate(comparison.runs):
        with contextlib.suppress(InputError):
            gallery = store.folder(run.manifest).gallery()
            if gallery is not None:
                found[place] = gallery
    return found


def comparison_pictures(
    galleries: Mapping[int, Gallery], differing: Sequence[Differing]
) -> Pictures | None:
    """Return pictures of what candidates lost, as far as a page has room; None if there is none."""
    rows = {
        place: {index: row for row, index in enumerate(gallery.index.tolist())}
        for place, gallery in galleries.items()
    }
    pictures = Pictures()
    size = 0
    for sample in differing:
        for place, gallery in galleries.items():
            row = rows[place].get(sample.index)
            if row is None or sample.falls[place] is None or size > MOST_BYTES:
                continue
            lossless = gallery.clean.shape[2] <= LARGEST_LOSSLESS
            if sample.index not in pictures.clean:
                clean = data_address(levels(gallery.clean[row]), lossless)
                pictures.clean[sample.index] = clean
                size += len(clean)
            shown = data_address(levels(gallery.adversarial[row]), lossless)
            pictures.adversarial[place, sample.index] = shown
            size += len(shown)
    return pictures if pictures.adversarial else None
