"""Figures outside pages: every drawing of a page as SVG and PDF, or as matplotlib has it."""

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

_wanted: ContextVar[Callable[[Figure, str], None] | None] = ContextVar("wanted", default=None)
"""Takes each finished figure and its identifier; None: nobody wants them."""


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

    def keep(figure: Figure, identifier: str) -> None:
        kept[identifier] = {each: _file(figure, identifier, each) for each in FORMATS}

    with _wanting(keep):
        yield save


@contextmanager
def collecting_figures() -> Iterator[dict[str, Figure]]:
    """Collect what is drawn meanwhile, by identifier."""
    found: dict[str, Figure] = {}
    with _wanting(lambda figure, identifier: found.update({identifier: figure})):
        yield found


def keep_figure(figure: Figure, identifier: str) -> None:
    """Hand on a finished figure, if anybody wants it."""
    keep = _wanted.get()
    if keep is not None:
        keep(figure, identifier)


@contextmanager
def _wanting(keep: Callable[[Figure, str], None]) -> Iterator[None]:
    token = _wanted.set(keep)
    try:
        yield
    finally:
        _wanted.reset(token)


def _file(figure: Figure, identifier: str, extension: str) -> bytes:
    buffer = io.BytesIO()
    # Fixed metadata and ids: the same figure gives the same file.
    metadata = {"Date": None} if extension == "svg" else {"CreationDate": None}
    with rc_context({"svg.hashsalt": identifier, "pdf.fonttype": 42}):
        figure.savefig(buffer, format=extension, metadata=metadata, facecolor="white")
    return buffer.getvalue()
