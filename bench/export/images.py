"""Broken samples as image files: clean, adversarial, and their difference magnified."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from bench.errors import InputError
from bench.pages.pixels import levels, magnified, picture
from bench.store.files import write
from bench.store.records import ImageArray

INDEX = "index.csv"


def write_images(
    out: Path,
    rows: Iterable[dict[str, object]],
    clean: ImageArray,
    adversarial: ImageArray,
    norm: str,
    eps: float,
) -> None:
    """Write NUMBER-clean.png, NUMBER-adversarial.png and NUMBER-difference.png, and an index.

    In the difference grey is no change; black and white are eps for Linf, and the image's largest
    change for other norms.

    Args:
        out: the folder; it is created if needed.
        rows: of `index.csv`, with equal keys; "index", the place in the data set, names the files.
        clean: (n, C, H, W) in [0, 1].
        adversarial: (n, C, H, W), multiples of 1/255.
        norm: of the threat model.
        eps: its radius.

    Raises:
        InputError: the folder cannot be written.
    """
    written = []
    try:
        out.mkdir(parents=True, exist_ok=True)
        for row, before, after in zip(rows, clean, adversarial, strict=True):
            change = after - before
            scale = eps if norm == "Linf" else float(np.abs(change).max())
            name = f"{row['index']:06}"
            for what, image in (
                ("clean", before),
                ("adversarial", after),
                ("difference", magnified(change, scale)),
            ):
                buffer = io.BytesIO()
                picture(levels(image)).save(buffer, "PNG", optimize=True)
                (out / f"{name}-{what}.png").write_bytes(buffer.getvalue())
            written.append(row)
        table = io.StringIO(newline="")
        writer = csv.DictWriter(table, list(written[0]) if written else ["index"])
        writer.writeheader()
        writer.writerows(written)
        write(out / INDEX, table.getvalue().encode("utf-8", errors="replace"))
    except OSError as error:
        raise InputError(
            f"{out}: the images cannot be written: {error.strerror}; choose another folder"
        ) from error
