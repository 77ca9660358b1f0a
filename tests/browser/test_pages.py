"""Every page in a real browser, from a disk."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.auditing.page import write_report
from tests.audit.records import records
from tests.audit.test_report import report

from .conftest import HOSTILE, Opened

Visit = Callable[..., Opened]

MOST_BYTES = 3_000_000
WIDTHS = (1440, 390)


def address(site: Path, page: str) -> str:
    return (site / page).as_uri()


def pages(site: Path) -> list[str]:
    return sorted(path.relative_to(site).as_posix() for path in site.rglob("*.html"))


def kinds(site: Path) -> list[str]:
    """One page of each kind: checks that look closely need not see all."""
    found = pages(site)
    compared = [name for name in found if "/compare/" in name]
    return [
        "index.html",
        "few-digits.html",
        "few-certified.html",
        "cifar100-linf.html",
        "few-digits/digits-robust.html",
        "few-digits/digits-mix.html",
        "few-certified/digits-gaussian.html",
        *[name for name in compared if name.startswith("few-")][:3],
    ]


def test_every_page_is_quiet_small_and_complete(site: Path, visit: Visit) -> None:
    """No message, no request, no dialog, under 3 MB, and every link leads to a page and a place."""
    for name in pages(site):
        assert (site / name).stat().st_size < MOST_BYTES, name
        opened = visit(address(site, name))
        page = opened.page
        assert opened.messages == [], name
        assert opened.requests == [address(site, name)], name
        assert page.title(), name
        links = page.eval_on_selector_all(
            "a[href]", "all => all.map(each => new URL(each.getAttribute('href'), location).href)"
        )
        for link in {each for each in links if each.startswith("file:")}:
            target, _, place = link.partition("#")
            path = Path(target.removeprefix("file://"))
            assert path.is_file(), f"{name} links to {link}"
            if path == site / name and place and "?" not in place:
                assert page.locator(f"[id='{place}']").count() == 1, f"{name} links to {link}"
        outside = [each for each in links if not each.startswith("file:")]
        # A download is a blob that the page has made itself.
        assert all(each.startswith(("https://", "http://", "blob:")) for each in outside), name
        page.context.close()


def test_no_page_scrolls_sideways_on_a_phone(site: Path, visit: Visit) -> None:
    opened = visit(address(site, "index.html"), width=390)
    for name in pages(site):
        opened.page.goto(address(site, name))
        width = opened.page.evaluate("document.documentElement.scrollWidth")
        assert width <= 390, f"{name}: {width} pixels wide"


def test_an_audit_is_read_without_scrolling_on_a_phone(tmp_path: Path, visit: Visit) -> None:
    page = write_report(report(records(0.4)), tmp_path)["page"]
    opened = visit(page.as_uri(), width=390)
    cells = opened.page.locator(".claims tbody tr:last-child > *")
    boxes = cells.evaluate_all("all => all.map(each => each.getBoundingClientRect().toJSON())")
    assert all(box["right"] <= 390 for box in boxes)
    heights = [box["top"] for box in boxes]
    title, claimed, *_, verdict, why = heights
    assert title < verdict < claimed < why


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(site: Path, visit: Visit, axe: str, scheme: str) -> None:
    wrong = []
    for name in kinds(site):
        for width in WIDTHS:
            # The page's own policy forbids a script that tests add.
            opened = visit(address(site, name), width, color_scheme=scheme, bypass_csp=True)
            opened.page.evaluate(axe)
            found = opened.page.evaluate("axe.run(document, {resultTypes: ['violations']})")
            wrong += [
                f"{name} at {width}: {each['id']}: {each['nodes'][0]['html'][:160]}: "
                f"{each['nodes'][0]['failureSummary'][:200]}"
                for each in found["violations"]
            ]
            opened.page.context.close()
    assert not wrong, "\n".join(sorted(set(wrong)))


def test_hostile_names_are_text(site: Path, visit: Visit) -> None:
    opened = visit(address(site, "cifar100-linf.html"))
    text = opened.page.locator("#leaderboard").inner_text()
    for name in HOSTILE:
        assert name in text.replace("\u200b", ""), name
    assert opened.messages == []


def rows(opened: Opened, cell: str = "th[scope=row]") -> list[str]:
    found = opened.page.locator(f"#leaderboard-table tbody tr:not([hidden]) {cell}")
    return [" ".join(text.split()) for text in found.all_inner_texts()]


def wait_until(page: Any, condition: str, seconds: float = 10.0) -> None:
    """Wait for a condition in JavaScript. Playwright's own way needs `eval`, which pages forbid."""
    end = time.monotonic() + seconds
    while not page.evaluate(condition):
        assert time.monotonic() < end, f"expected {condition} within {seconds} s"
        time.sleep(0.05)


def test_the_leaderboard_sorts_filters_and_keeps_its_state_in_the_address(
    site: Path, visit: Visit
) -> None:
    opened = visit(address(site, "cifar100-linf.html"))
    page = opened.page
    ranked = rows(opened)
    assert len(ranked) > 38, "expected all published models, too"
    heading = page.locator("#leaderboard-table th[data-key=clean]")
    heading.locator("button").click()
    assert heading.get_attribute("aria-sort") == "descending"
    down = rows(opened)
    heading.locator("button").click()
    assert heading.get_attribute("aria-sort") == "ascending"
    assert rows(opened) != down
    assert sorted(rows(opened)) == sorted(ranked)
    page.locator("#leaderboard input[name=text]").fill("wang2023")
    shown = rows(opened)
    assert 0 < len(shown) < len(ranked)
    assert all("wang2023" in name.lower() for name in shown)
    page.locator("#leaderboard select[name=source]").select_option("published")
    state = page.evaluate("location.hash")
    assert "text=wang2023" in state
    assert "sort=clean-ascending" in state
    shown = rows(opened)
    # Whoever is sent the address sees the same.
    again = visit(address(site, "cifar100-linf.html") + state)
    assert rows(again) == shown
    assert again.page.locator("#leaderboard input[name=text]").input_value() == "wang2023"
    again.page.locator("#leaderboard button[type=reset]").click()
    wait_until(again.page, "!location.hash.includes('text=')")
    assert sorted(rows(again)) == sorted(ranked)
    assert opened.messages == again.messages == []


def test_marks_say_their_values(site: Path, visit: Visit) -> None:
    compared = next(name for name in pages(site) if name.startswith("few-digits/compare/"))
    for name in ("cifar100-linf.html", "few-digits.html", compared):
        page = visit(address(site, name)).page
        mark = page.locator("main svg [data-tip]:visible").last
        text = mark.get_attribute("data-tip")
        assert text
        mark.scroll_into_view_if_needed()
        # Scrolling hides tips, and the browser tells of it with its next frame.
        page.evaluate("new Promise(done => setTimeout(done, 300))")
        mark.hover(force=True)
        tip = page.locator("#tip")
        tip.wait_for(state="visible")
        assert any(character.isdigit() for character in tip.inner_text()), name


def test_the_gallery_filters(site: Path, visit: Visit) -> None:
    opened = visit(address(site, "few-digits/digits-standard.html"))
    page = opened.page
    shown = page.locator("#shots > li:visible")
    everything = shown.count()
    assert everything > 1
    label = page.locator("#shots > li:visible").first.get_attribute("data-class")
    page.locator("#choose select[name=class]").select_option(label)
    assert 0 < shown.count() < everything
    classes = shown.evaluate_all("all => all.map(each => each.dataset.class)")
    assert set(classes) == {label}
    widths = page.locator("#shots img").evaluate_all("all => all.map(each => each.naturalWidth)")
    assert set(widths) == {8}, "expected decoded pictures"
    assert opened.messages == []


def test_a_comparison_shows_where_candidates_differ(site: Path, visit: Visit) -> None:
    name = "few-digits/compare/digits-robust--digits-standard.html"
    opened = visit(address(site, name))
    page = opened.page
    table = page.locator("#differing tbody tr")
    counts = [int(text) for text in page.locator("#paired tbody td.number").all_inner_texts()[:4]]
    assert sum(counts) == 24
    assert table.count() == counts[1] + counts[2]
    assert page.locator("#differing img.pixels").count() >= 2
    page.locator("#differing thead button").last.click()
    assert page.locator("#differing th[aria-sort]").count() == 1
    page.locator("nav.trail a").last.click()
    assert page.url.endswith("few-digits.html")
    assert opened.messages == []


def test_paper_shows_everything_in_the_width_of_a_page(site: Path, visit: Visit) -> None:
    for name in kinds(site):
        # A4 across, without margins of 12 mm, at 96 dots an inch.
        opened = visit(address(site, name), width=1032)
        page = opened.page
        page.emulate_media(media="print")
        assert (
            page.locator("header.bar").evaluate("each => getComputedStyle(each).display") == "none"
        )
        folds = page.evaluate(
            "dispatchEvent(new Event('beforeprint')),"
            " document.querySelectorAll('details:not([open])').length"
        )
        assert folds == 0, f"{name}: {folds} closed folds"
        assert page.pdf(format="A4", landscape=True)[:5] == b"%PDF-"
        style = "getComputedStyle(document.body)"
        assert page.evaluate(f"{style}.backgroundColor") == "rgb(255, 255, 255)", name
        page.context.close()
