"""The pages: self-contained, safe, complete, the same each time."""

from __future__ import annotations

import hashlib
import json
import re
from base64 import b64encode
from html.parser import HTMLParser
from pathlib import Path

import matplotlib
import pytest

from bench.errors import InputError
from bench.pages.addresses import candidate_page, comparison_page, link, suite_page
from bench.pages.build import build_report
from bench.pages.svg import ROLES, drawing
from bench.store import Store
from bench.store.manifest import Selection
from bench.store.summary import Flag

from .runs import make_manifest, save_run

HOSTILE = "<script>alert('$x$')</script> & \"co\x07\""
LOADING = {"src", "srcset", "data", "poster", "action", "formaction", "background", "ping"}


class Page(HTMLParser):
    """What of a page matters for safety: elements, links, and what would be loaded."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.handlers: list[str] = []
        self.ids: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in LOADING or (name.endswith("href") and tag not in {"a", "use"}):
                self.loaded.append(f"{tag} {name}={value}")
            if name == "href" and tag == "use" and not str(value).startswith("#"):
                self.loaded.append(f"{tag} {name}={value}")
            if name == "href" and tag == "a":
                self.links.append(str(value))
            if name.startswith("on"):
                self.handlers.append(f"{tag} {name}")
            if name == "id":
                self.ids.append(str(value))


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    store = Store(folder / "results")
    paper = {"title": "<b>Bold</b>", "link": "javascript:alert(1)", "venue": "</style>"}
    flag = Flag(
        name="zero-gradients", measured=0.5, threshold=0.01, meaning="No <slope>.", advice="BPDA."
    )
    save_run(
        store,
        make_manifest(
            "cifar100-linf",
            "robustbench:Bai2023Improving_edm",
            100,
            information={"claim": "Bai2023Improving_edm", "architecture": "module:Mix"},
        ),
        85,
        [41, 40, 39, 39],
    )
    save_run(
        store,
        make_manifest(
            "cifar100-linf",
            HOSTILE,
            100,
            information={
                "architecture": "<img src=x onerror=alert(1)>",
                "paper": paper,
                "training": {"note": "</script><script>alert(2)</script>"},
            },
        ),
        60,
        [20, 20, 20, 20],
        flags=[flag],
    )
    save_run(
        store,
        make_manifest(
            "cifar100-linf",
            "few",
            20,
            overrides={"n_examples": 20},
            selection=Selection(kind="first", n=20),
        ),
        19,
        [19, 19, 19, 19],
    )
    save_run(store, make_manifest("digits-linf", "digits-robust", 360), 350, [270, 265, 265, 265])
    damaged = save_run(store, make_manifest("digits-linf", "broken", 360), 9, [9, 9, 9, 9])
    (damaged.path / "run.json").write_text("{")
    assert build_report(store, folder / "reports") == folder / "reports" / "index.html"
    return folder / "reports"


PAGES = ["index.html", "cifar100-linf.html", "digits-linf.html"]


@pytest.mark.parametrize("name", PAGES)
def test_nothing_is_loaded(reports: Path, name: str) -> None:
    text = (reports / name).read_text(encoding="utf-8")
    page = Page(text)
    assert page.loaded == []
    assert page.handlers == []
    assert not {"img", "link", "iframe", "object", "embed", "base", "b"} & set(page.tags)
    assert page.tags.count("script") == 1
    assert not re.search(r"url\((?!#)|@import", text)
    assert all(re.match(r"https?://|#|[\w./-]+\.html(#.*)?$", link) for link in page.links)
    assert len(page.ids) == len(set(page.ids))
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)


def test_the_page_allows_its_own_script_only(reports: Path) -> None:
    text = (reports / "cifar100-linf.html").read_text(encoding="utf-8")
    script = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert len(script) == 1
    digest = b64encode(hashlib.sha256(script[0].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in text


def test_hostile_names_are_text(reports: Path) -> None:
    text = (reports / "cifar100-linf.html").read_text(encoding="utf-8")
    assert "<script>alert(" not in text
    assert "&lt;script&gt;alert(" in text
    assert "<img src=x" not in text
    assert 'href="javascript:' not in text
    assert "No &lt;slope&gt;." in text


def rows(text: str, section: str) -> list[str]:
    """Rows of a section's table as text, cells separated by |."""
    part = text[text.index(f'<section id="{section}"') :]
    body = part[part.index("<tbody>") : part.index("</tbody>")]
    cells = [re.sub(r"</t[dh]>", "|", row) for row in body.split("</tr>")[:-1]]
    return [" ".join(re.sub(r"<[^>]*>", "", row).split()) for row in cells]


def test_full_runs_are_ranked_and_stand_beside_published_numbers(reports: Path) -> None:
    text = (reports / "cifar100-linf.html").read_text(encoding="utf-8")
    everything = rows(text, "leaderboard")
    first, *_ = ranked = [row for row in everything if " published |" not in row]
    assert len(ranked) == 3
    assert len(everything) == 3 + 37
    assert first.startswith("–| few 20 of 100 |")
    assert ranked[1].startswith("1A| robustbench:Bai2023Improving_edm")
    assert "| 85.00 95%: 76.5 to 91.4|" in ranked[1]
    assert "| 39.00 95%: 29.4 to 49.3| +0.28 reproduced|" in ranked[1]
    assert ranked[2].startswith("2A| &lt;script&gt;")
    assert "zero-gradients" in ranked[2]
    assert everything[1].startswith("1| Wang2023Better_WRN-70-16 published |")


def test_drawings_show_measured_and_published(reports: Path) -> None:
    text = (reports / "cifar100-linf.html").read_text(encoding="utf-8")
    # Every second drawing is that of narrow windows.
    tradeoff, attacks = re.findall(r"<svg.*?</svg>", text, re.DOTALL)[::2]
    assert tradeoff.count("(published") >= 37
    assert "Bai2023Improving_edm" in tradeoff
    assert "broken by apgd-t 1.00%" in attacks
    style = text[text.index("<style>") : text.index("</style>")]
    for role in ROLES:
        assert style.count(f"--chart-{role}:") == 2, "expected a light and a dark color"


def test_a_damaged_run_is_named(reports: Path) -> None:
    text = (reports / "digits-linf.html").read_text(encoding="utf-8")
    assert "1 run could not be read" in text
    assert "digits-linf/broken/" in text
    assert str(reports.parent) not in text


def test_the_same_store_gives_the_same_pages(reports: Path, tmp_path: Path) -> None:
    build_report(Store(reports.parent / "results"), tmp_path, ["digits-linf"])
    name = "digits-linf.html"
    assert (tmp_path / name).read_bytes() == (reports / name).read_bytes()
    assert not (tmp_path / "cifar100-linf.html").exists()
    index = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert 'href="digits-linf.html"' in index
    assert 'href="cifar100-linf.html"' not in index
    assert "CIFAR-100" in index


def test_the_index_says_which_bound_its_best_number_is(tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    manifest = make_manifest("digits-linf", "net", 100, kind="express", protocol="express")
    save_run(store, manifest, 90, [60] * 4)
    index = build_report(store, tmp_path / "reports").read_text(encoding="utf-8")
    assert re.search(r'net <span class="chip variant"[^>]*>express</span>', index)


def test_nothing_to_show_is_said(reports: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no complete run"):
        build_report(Store(tmp_path / "none"), tmp_path)
    with pytest.raises(InputError, match=r"cifar10-l2.*expected one of cifar100-linf, digits-linf"):
        build_report(Store(reports.parent / "results"), tmp_path, ["cifar10-l2"])


def test_names_that_would_collide_or_leave_the_folder() -> None:
    assert suite_page("index") == "suite-index.html"
    assert suite_page("../../x") == "-..-x.html"


def test_drawings_do_not_follow_a_users_matplotlib_settings() -> None:
    theirs = {"axes.titlecolor": "red", "svg.fonttype": "path", "text.usetex": True}
    with matplotlib.rc_context(theirs), drawing(2, 2) as sketch:
        sketch.axes.set_title("a $b$ & <c>")
        sketch.set_title(sketch.axes.plot([0, 1], [0, 1], color=ROLES["measured"])[0], "a line")
        svg = str(sketch.to_svg("one", 'what "it" shows'))
    assert "a $b$ &amp; &lt;c&gt;" in svg
    assert "<title>a line</title>" in svg
    assert "var(--chart-measured, #0072b2)" in svg
    assert "http" not in svg
    assert all(found.startswith("one-") for found in re.findall(r' id="(.*?)"', svg))


def test_records_with_broken_unicode_are_written(tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    folder = save_run(store, make_manifest("digits-linf", "plain", 360), 350, [270] * 4)
    path = folder.path / "run.json"
    content = json.loads(path.read_text())
    content["manifest"]["candidate"] = "half \ud800"
    path.write_text(json.dumps(content))
    build_report(store, tmp_path / "reports")
    assert "half" in (tmp_path / "reports" / "digits-linf.html").read_text(encoding="utf-8")


def test_addresses_stay_inside_the_site_and_tell_names_apart() -> None:
    assert candidate_page("digits", "a b") != candidate_page("digits", "a-b")
    assert candidate_page("digits", "../../x").startswith("digits/")
    assert ".." not in candidate_page("digits", "../../x").split("/")
    pair = comparison_page("digits", ["b", "a"])
    assert pair == comparison_page("digits", ["a", "b"]) == "digits/compare/a--b.html"
    assert link(pair, "index.html") == "../../index.html"
