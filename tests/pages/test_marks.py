"""Pages that would be the same are left as they are; all others are drawn."""

from __future__ import annotations

from pathlib import Path

from bench.pages.addresses import candidate_page, suite_page
from bench.pages.build import build_report
from bench.pages.marks import carries, mark
from bench.store import Store

from .test_candidate_page import attacked_run

SUITE = "digits-linf"


def pages(folder: Path) -> dict[str, tuple[int, bytes]]:
    """The files of a site: when each was written, and what it says."""
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*.html")
    }


def test_a_new_run_draws_the_pages_that_show_it(tmp_path: Path) -> None:
    store, site = Store(tmp_path / "results"), tmp_path / "site"
    attacked_run(store, "weak", n=8)
    build_report(store, site)
    before = pages(site)
    build_report(store, site)
    again = pages(site)
    assert {name for name in before if before[name] != again[name]} == {"index.html"}

    attacked_run(store, "weakest", n=8, broken=7)
    build_report(store, site)
    after = pages(site)
    weakest = candidate_page(SUITE, "weakest")
    assert {suite_page(SUITE), weakest} <= {
        name for name in after if before.get(name) != after[name]
    }
    fresh = tmp_path / "fresh"
    build_report(store, fresh)
    assert {name: text for name, (_, text) in pages(fresh).items()} == {
        name: text for name, (_, text) in after.items()
    }


def test_a_changed_table_is_shown(tmp_path: Path) -> None:
    store, site = Store(tmp_path / "results"), tmp_path / "site"
    run = attacked_run(store, "one", n=8)
    build_report(store, site)
    (run.path / "gallery.npz").write_bytes(b"damaged")
    build_report(store, site)
    text = (site / candidate_page(SUITE, "one")).read_text(encoding="utf-8")
    assert "Not on this page" in text


def test_an_earlier_site_lends_its_pages(tmp_path: Path) -> None:
    store, old, new = Store(tmp_path / "results"), tmp_path / "old", tmp_path / "new"
    attacked_run(store, "one", n=8)
    build_report(store, old)
    build_report(store, new, earlier=old)
    page = candidate_page(SUITE, "one")
    assert (old / page).samefile(new / page)
    assert pages(old).keys() == pages(new).keys()
    attacked_run(store, "newcomer", n=8)
    build_report(store, new)
    # The pages of the earlier site are shared, and yet not written into.
    assert "newcomer" not in (old / suite_page(SUITE)).read_text(encoding="utf-8")
    assert "newcomer" in (new / suite_page(SUITE)).read_text(encoding="utf-8")


def test_an_unknown_mark_is_on_no_page(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text('<meta name="made-from" content="">')
    assert not carries(page, "")
    assert not carries(tmp_path / "none.html", mark("anything", []))
