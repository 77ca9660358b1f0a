"""What all pages of the site share: the templates' environment, and the form of a page maker.

A page maker is a function of the environment, the store and a suite's leaderboard. It yields the
pages; `bench.pages.build` calls all makers in turn, and renders what is not up to date.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import resources

import jinja2
from markupsafe import Markup

import bench
from bench import formatting
from bench.pages.addresses import INDEX, candidate_page, comparison_page, link, suite_page
from bench.pages.compared_pairs import compared_pairs
from bench.pages.leaderboard import Leaderboard
from bench.pages.provenance import differences, provenance
from bench.store import Store


@dataclass(frozen=True)
class Page:
    """A page of the site, which is rendered only where it is needed.

    Attributes:
        address: one of `bench.pages.addresses`.
        render: returns the page's text.
        mark: of everything that the page shows (`bench.pages.marks`), which the text carries; a
            page with the same mark is the same page. Empty: not known.
    """

    address: str
    render: Callable[[], str]
    mark: str = ""


PageMaker = Callable[[jinja2.Environment, Store, Leaderboard], Iterator[Page]]

FILTERS = (
    formatting.percent,
    formatting.points,
    formatting.interval,
    formatting.interval_kind,
    formatting.radius,
    formatting.threat_model,
    formatting.count,
    formatting.duration,
    formatting.moment,
    formatting.web_link,
    formatting.setting,
    formatting.ordinal,
    formatting.power_rows,
    formatting.breakable,
    formatting.short_name,
)


def site_environment() -> jinja2.Environment:
    """Return the environment that renders the templates of `bench/pages/templates`.

    Everything is escaped, and a page allows exactly the site's own script and style.
    """
    script = _static("page.js")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("bench.pages"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {function.__name__: function for function in FILTERS}
    environment.globals |= {
        "bench_version": bench.__version__,
        "style": Markup(_static("style.css")),
        "script": Markup(script),
        # The page allows exactly this script and no other, whatever a record holds.
        "script_digest": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "provenance": provenance,
        "differences": differences,
        "suite_page": suite_page,
        "candidate_page": candidate_page,
        "comparison_page": comparison_page,
        "compared_pairs": compared_pairs,
        "index": INDEX,
        "link": link,
    }
    return environment


def _static(name: str) -> str:
    return (resources.files("bench.pages") / "static" / name).read_text(encoding="utf-8")
