"""Where each page of the site lies, and how pages link to each other.

    index.html
    <suite>.html
    <suite>/<candidate>.html
    <suite>/compare/<candidate>--<candidate>.html

Addresses are relative to the site's folder and use `/`, so that the site opens from a disk.
"""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Sequence

from bench.store import safe_name

INDEX = "index.html"
COMPARISONS = "compare"


def suite_page(suite: str) -> str:
    """Return the address of a suite's page."""
    page = f"{safe_name(suite)}.html"
    return f"suite-{page}" if page == INDEX else page


def candidate_page(suite: str, candidate: str) -> str:
    """Return the address of a candidate's page under a suite."""
    return f"{_folder(suite)}/{_distinct(candidate)}.html"


def comparison_page(suite: str, candidates: Sequence[str]) -> str:
    """Return the address of the page that compares candidates, whatever their order."""
    names = "--".join(_distinct(name) for name in sorted(candidates))
    return f"{_folder(suite)}/{COMPARISONS}/{safe_name(names)}.html"


def link(page: str, target: str) -> str:
    """Return what leads from one address of the site to another."""
    return posixpath.relpath(target, posixpath.dirname(page) or ".")


def _folder(suite: str) -> str:
    return suite_page(suite).removesuffix(".html")


def _distinct(name: str) -> str:
    # Two names that are alike as file names must not share a page.
    safe = safe_name(name)
    if safe == name:
        return safe
    return f"{safe[:80]}-{hashlib.sha256(name.encode('utf-8', 'replace')).hexdigest()[:8]}"
