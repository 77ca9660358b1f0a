"""Build the site: an index and the pages of each suite, files that need no network."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from bench.errors import InputError
from bench.pages.addresses import INDEX, suite_page
from bench.pages.boards import leaderboards
from bench.pages.candidate_page import candidate_pages
from bench.pages.comparison_page import comparison_pages
from bench.pages.figures import saving_figures
from bench.pages.index_page import index_page
from bench.pages.marks import carries
from bench.pages.site import Page, PageMaker, site_environment
from bench.pages.suite_page import suite_pages
from bench.store import Store
from bench.store.files import write
from bench.suites import suite_name, suite_names

PAGE_MAKERS: tuple[PageMaker, ...] = (suite_pages, candidate_pages, comparison_pages)
"""Each yields pages about one leaderboard."""


def build_report(
    store: Store,
    out: Path,
    suites: Sequence[str] | None = None,
    figures: Path | None = None,
    earlier: Path | None = None,
) -> Path:
    """Write the pages of each suite with complete runs, and an `index.html` that lists them.

    This reads the store and the published numbers only. A run that cannot be read is left out,
    logged, and listed on its suite's page. A page that is there and carries the mark of what it
    would show is left as it is.

    Args:
        store: the store with the results.
        out: the folder to write to; it is created if needed.
        suites: names or paths of the suites whose pages are written; None: all suites of the store.
            The index always lists all suites, and links those that have a page in `out`.
        figures: a folder for every figure as SVG and PDF; None: they are in the pages only.
            All pages are rendered where it is given.
        earlier: a folder with an earlier site on the same disk, whose pages are taken where they
            carry the mark of what they would show; None: `out`.

    Returns:
        the path of the index.

    Raises:
        InputError: there is no complete run at all or of a named suite, or `out` or `figures`
            cannot be written.
    """
    wanted = None if suites is None else {suite_name(each) for each in suites}
    boards = leaderboards(store)
    found = [board.suite for board in boards]
    for name in sorted(wanted or ()):
        if name not in found:
            advice = f"; `bench run --suite {name}` makes one" if name in suite_names() else ""
            raise InputError(
                f"suite {name!r}: no complete run in {store.root}, expected one of "
                f"{', '.join(found) or '(none)'}{advice}"
            )
    if not boards:
        raise InputError(
            f"no complete run in {store.root}; `bench run --suite digits-linf` makes one"
        )
    environment = site_environment()
    try:
        for board in boards:
            if wanted is None or board.suite in wanted:
                for make in PAGE_MAKERS:
                    _write_pages(make(environment, store, board), out, figures, earlier or out)
        written = {board.suite for board in boards if (out / suite_page(board.suite)).is_file()}
        index = index_page(environment, store, boards, written)
        _write(out / index.address, index.render())
    except OSError as error:
        raise InputError(
            f"{error.filename or out}: the report cannot be written: {error.strerror}; choose "
            "another folder"
        ) from error
    return out / INDEX


def _write_pages(pages: Iterable[Page], out: Path, figures: Path | None, earlier: Path) -> None:
    with saving_figures(figures) as save:
        for page in pages:
            path, there = out / page.address, earlier / page.address
            if figures is None and carries(there, page.mark):
                _take(there, path)
            else:
                _write(path, page.render())
                save(page.address)


def _take(source: Path, target: Path) -> None:
    if source != target:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        # Pages are replaced whole, never written into, so that both sites may share them.
        os.link(source, target)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # JSON records may hold unpaired surrogates, which UTF-8 cannot encode.
    write(path, text.encode("utf-8", errors="replace"))
