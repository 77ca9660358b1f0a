"""Figures as files: every drawing of a page, as SVG and PDF."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

from bench.store.files import write

FORMATS = ("svg", "pdf")

_drawn: ContextVar[dict[str, dict[str, bytes]] | None] = ContextVar("drawn", default=None)
"""The files of the current page's figures by identifier and format; None: they are not wanted."""


@contextmanager
def saving_figures(folder: Path | None) -> Iterator[Callable[[str], None]]:
    """Keep what is drawn meanwhile; yields a function that writes it, to call after each page.

    The function takes the page's address. The figures of the page a/b.html are written to
    a/b/NAME.svg and a/b/NAME.pdf below `folder`.

    Args:
        folder: where to write; None: nothing is kept.
    """
    if folder is None:
        yield lambda address: None
        return
    kept: dict[str, dict[str, bytes]] = {}

    def save(address: str) -> None:
        for name, files in kept.items():
            for extension, content in files.items():
                path = folder / address.removesuffix(".html") / f"{name}.{extension}"
                path.parent.mkdir(parents=True, exist_ok=True)
                write(path, content)
        kept.clear()

    token = _drawn.set(kept)
    try:
        yield save
    finally:
        _drawn.reset(token)


def keep_figure(figure: Figure, identifier: str) -> None:
    """Keep a finished figure for `saving_figures`, if anybody wants it."""
    kept = _drawn.get()
    if kept is None:
        return
    kept[identifier] = {extension: _file(figure, identifier, extension) for extension in FORMATS}


def _file(figure: Figure, identifier: str, extension: str) -> bytes:
    buffer = io.BytesIO()
    # Fixed metadata and ids: the same figure gives the same file.
    metadata = {"Date": None} if extension == "svg" else {"CreationDate": None}
    with rc_context({"svg.hashsalt": identifier, "pdf.fonttype": 42}):
        figure.savefig(buffer, format=extension, metadata=metadata, facecolor="white")
    return buffer.getvalue()
