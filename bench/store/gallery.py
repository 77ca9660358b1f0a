"""Clean images of some broken samples, so that a run can be looked at without its data set."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np

from bench.store.packing import apply_difference
from bench.store.records import ImageArray, IntArray, TextArray, Witnesses

MOST_SAMPLES = 200
MOST_BYTES = 6_000_000
"""The clean images as they are stored, before compression: 40 color images of 224 x 224."""

LEVELS = np.float32(255)


@dataclass(frozen=True)
class Gallery:
    """Broken samples to look at, the most telling first.

    Attributes:
        index: (n,) places in the data set.
        attack: (n,) names of the attacks that found the adversarial images.
        prediction: (n,) classes predicted for the adversarial images; -1: none.
        clean: (n, C, H, W) float32 in [0, 1].
        adversarial: (n, C, H, W) float32 in [0, 1], bit for bit the witnesses.
    """

    index: IntArray
    attack: TextArray
    prediction: IntArray
    clean: ImageArray
    adversarial: ImageArray


def pack_gallery(witnesses: Witnesses, clean_images: ImageArray) -> bytes:
    """Return the clean images of some witnesses as the content of an `.npz` file.

    Args:
        clean_images: (n, C, H, W) float32, the clean image of each witness.
    """
    levels = np.rint(clean_images * LEVELS)
    # Most data sets hold 8-bit images, which take a quarter of the space.
    is_exact = bool(((levels.astype(np.float32) / LEVELS) == clean_images).all())
    packed = levels.astype(np.uint8) if is_exact else clean_images
    most = min(MOST_SAMPLES, max(1, MOST_BYTES // max(packed[0].nbytes, 1)))
    chosen = spread(witnesses.attack.tolist(), witnesses.prediction.tolist())[:most]
    buffer = io.BytesIO()
    np.savez_compressed(buffer, index=witnesses.index[chosen], clean=packed[chosen])
    return buffer.getvalue()


def read_gallery(path: Path, witnesses: Path) -> Gallery:
    """Return the gallery of two files: what `pack_gallery` made, and the packed witnesses.

    Raises:
        KeyError, OSError, ValueError: a file is missing or damaged.
    """
    with np.load(path, allow_pickle=False) as archive:
        index, clean = archive["index"], archive["clean"]
    if clean.dtype == np.uint8:
        clean = clean.astype(np.float32) / LEVELS
    with np.load(witnesses, allow_pickle=False) as archive:
        place = {value: row for row, value in enumerate(archive["index"].tolist())}
        rows = [place[value] for value in index.tolist()]
        return Gallery(
            index=index,
            attack=archive["attack"][rows],
            prediction=archive["prediction"][rows],
            clean=clean,
            adversarial=apply_difference(clean, archive["difference"][:, rows]),
        )


def spread(*keys: Sequence[object]) -> list[int]:
    """Return the places of n things, so that the first ones differ as much as possible.

    Each combination of keys has its turn, so that a rare attack is seen beside a common one.
    """
    groups: dict[tuple[object, ...], list[int]] = {}
    for place, key in enumerate(zip(*keys, strict=True)):
        groups.setdefault(key, []).append(place)
    return list(_turns(list(groups.values())))


def _turns(groups: Sequence[Sequence[int]]) -> Iterator[int]:
    for turn in zip_longest(*groups):
        yield from (place for place in turn if place is not None)
