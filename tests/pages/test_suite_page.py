"""The suite's page: one leaderboard for all runs, whatever the records hold."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from bench.pages.build import build_report
from bench.pages.leaderboard import make_leaderboard
from bench.pages.rows import Row, family, leaderboard_rows
from bench.pages.site import site_environment
from bench.pages.suite_page import suite_pages
from bench.pages.svg import drawing
from bench.pages.tradeoff_plot import limit_axes
from bench.statistics import exact_binomial_interval
from bench.store import Store
from bench.store.best_known import BestKnown
from bench.store.manifest import DatasetRecord, Selection
from bench.store.summary import AttackedSummary, ExpressSummary, Flag, Summary
from bench.suites import load_suite

from .runs import make_manifest, make_summary, save_run
from .test_pages import Page

SUITE = "cifar100-linf"
ENDS = ("low", "high")
WHOLE = DatasetRecord(name="cifar100", sha256="d" * 64, size=10_000)


def part(candidate: str, n: int, robust: int, **changes: Any) -> AttackedSummary:
    """A run of the first n images."""
    manifest = make_manifest(
        SUITE,
        candidate,
        n,
        dataset=WHOLE,
        overrides={"n_examples": n},
        selection=Selection(kind="first", n=n),
        **changes,
    )
    return make_summary(manifest, n, [robust] * 4)


def full(candidate: str, clean: int, robust: int, **changes: Any) -> AttackedSummary:
    """A run of all images."""
    manifest = make_manifest(SUITE, candidate, 10_000, dataset=WHOLE, **changes)
    return make_summary(manifest, clean, [robust] * 4)


def rows_of(runs: Sequence[Summary]) -> list[Row]:
    return leaderboard_rows(make_leaderboard(SUITE, runs, load_suite(SUITE)), None)


def page_of(runs: Sequence[Summary], folder: Path) -> str:
    """The text of the suite's page; the store holds no tables."""
    board = make_leaderboard(SUITE, runs, load_suite(SUITE))
    (page,) = suite_pages(site_environment(), Store(folder), board)
    return page.render()


def test_a_part_of_the_images_stands_in_its_place_without_a_rank(tmp_path: Path) -> None:
    express = make_manifest(
        SUITE, "quick", 200, kind="express", protocol="express", dataset=WHOLE,
        overrides={"n_examples": 200}, selection=Selection(kind="first", n=200),
    )  # fmt: skip
    quick = ExpressSummary.model_validate(
        make_summary(express, 150, [100] * 4).model_dump() | {"left": None}
    )
    runs = [part("few", 100, 17), quick, full("whole", 8000, 4100)]
    rows = rows_of(runs)
    assert [row.place for row in rows] == sorted((row.place for row in rows), reverse=True)
    by_name = {row.name: row for row in rows}
    assert (by_name["few"].kind, by_name["few"].rank) == ("partial", None)
    assert (by_name["quick"].kind, by_name["quick"].rank) == ("express", None)
    assert (by_name["whole"].kind, by_name["whole"].rank) == ("full", 1)
    assert rows[0].name == "quick"
    assert by_name["Wang2023Better_WRN-70-16"].rank == 1
    assert sum(row.kind == "published" for row in rows) == 38
    text = page_of(runs[:1], tmp_path)
    assert "100 of 10,000" in text
    assert "10.2 to 25.8" in text
    assert 'id="trade-off"' in text
    assert text.count("(published)") > 30


def test_a_row_says_that_it_hides_other_weights(tmp_path: Path) -> None:
    told = "hides other weights"
    new = full("net", 9_000, 5_000, seed=1)
    assert told not in page_of([full("net", 9_000, 4_000), new], tmp_path)
    weights = {"weights": "a" * 64}
    assert told in page_of([full("net", 9_000, 4_000, weights_sha256=weights), new], tmp_path)
    assert told not in page_of([full("own", 9_000, 4_000, weights_sha256=weights), new], tmp_path)


def test_a_full_run_takes_the_place_of_the_published_model() -> None:
    claim = {"claim": "Bai2023Improving_edm"}
    same, short = full("mine", 8521, 3872, information=claim), part("short", 100, 90)
    rows = rows_of([same, short])
    assert "Bai2023Improving_edm" not in [row.name for row in rows]
    (mine,) = (row for row in rows if row.name == "mine")
    assert mine.gap == pytest.approx(0)
    assert mine.verdict is not None
    assert mine.verdict.outcome == "reproduced"
    assert mine.sources.split() == ["full", "measured", "published"]
    (mine,) = (row for row in rows_of([full("mine", 8521, 3000, information=claim)]) if row.n)
    assert mine.verdict is not None
    assert mine.verdict.outcome == "lower than published"


def test_other_settings_are_not_compared() -> None:
    radius = {"threat_model": {"norm": "Linf", "eps": 4 / 255}, "overrides": {"eps": 4 / 255}}
    board = make_leaderboard(SUITE, [full("small", 8000, 6000, **radius)], load_suite(SUITE))
    assert [row.kind for row in leaderboard_rows(board, None)] == ["published"] * 38
    assert [entry.manifest.candidate for entry in board.otherwise] == ["small"]


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [
        ("WideResNet-34-10", "WideResNet"),
        ("MeanSparse RaWideResNet-70-16", "WideResNet"),
        ("PreActResNet-18", "PreActResNet"),
        ("ConvNeXt-B + ConvStem", "ConvNeXt"),
        ("ResNet-152 + WideResNet-70-16", "Mix"),
        ("something of my own", "Other"),
    ],
)
def test_architectures_have_families(architecture: str, expected: str) -> None:
    assert family(architecture) == expected


HOSTILE = [
    "<script>alert(1)</script>",
    "a/b/../../c",
    "\N{SNOWMAN} \N{GRINNING FACE} $x$ ]]> --> \" onmouseover='alert(1)'",
    "long-" * 60,
    "</script><!--",
]


def test_whatever_the_records_hold_is_escaped_text(tmp_path: Path) -> None:
    paper = {"title": "<b>", "link": "javascript:alert(1)", "venue": "</td></table>"}
    odd = {"architecture": "<img src=x onerror=alert(1)>", "paper": paper}
    flag = Flag(
        name="odd", measured=float("nan"), threshold=0.0, meaning="<i>NaN</i> loss.", advice='"'
    )
    runs: list[Summary] = [full(name, 7000, 3000, information=odd) for name in HOSTILE]
    classes = DatasetRecord(
        name="mine", sha256="d" * 64, size=1, classes=tuple(f"<class {k}>" for k in range(1000))
    )
    runs.append(part("one", 1, 0).model_copy(update={"flags": [flag]}))
    nothing = full("no attacks", 10_000, 0, attacks=[], information={"paper": 3, "mix": 0})
    runs.append(nothing.model_copy(update={"attacks": [], "autoattack_accuracy": None}))
    many = make_summary(make_manifest(SUITE, "many", 1, dataset=classes), 0, [0] * 4)
    runs.append(
        many.model_copy(
            update={
                "engine_record": {"loss": float("nan")},
                "confidence_intervals": {"clean_accuracy": exact_binomial_interval(0, 1)},
            }
        )
    )
    text = page_of(runs, tmp_path)
    assert "<script>alert(" not in text
    assert text.count("<script>") == text.count("</script>") == 1
    assert "javascript:" not in text
    assert "<img" not in text
    assert "&lt;i&gt;NaN" in text
    assert text.count("<table") == text.count("</table>")
    assert Page(text).handlers == []


def test_five_hundred_candidates_stay_one_page(tmp_path: Path) -> None:
    runs = [full(f"candidate-{k}", 9000 - k, 1000 + 3 * k) for k in range(500)]
    text = page_of(runs, tmp_path)
    assert text.count('data-source="full measured"') == 500
    assert len(text.encode()) < 3_000_000


def test_narrow_windows_get_drawings_of_their_own(tmp_path: Path) -> None:
    text = page_of([full("net", 9_000, 5_000)], tmp_path)
    for section in ("trade-off", "attacks"):
        (drawn,) = re.findall(rf'<section id="{section}".*?</section>', text, re.DOTALL)
        assert (
            drawn.count('<div class="broad"><svg') == drawn.count('<div class="narrow"><svg') == 1
        )


def test_every_figure_is_also_a_file(tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    save_run(store, make_manifest("digits-linf", "digits-robust", 360), 350, [270] * 4)
    build_report(store, tmp_path / "site", figures=tmp_path / "figures")
    drawn = sorted(path.name for path in (tmp_path / "figures" / "digits-linf").iterdir())
    assert {"tradeoff.pdf", "tradeoff.svg", "attacks.pdf", "attacks-narrow.svg"} <= set(drawn)
    assert (tmp_path / "figures/digits-linf/tradeoff.pdf").read_bytes().startswith(b"%PDF")
    assert "Clean accuracy (%)" in (tmp_path / "figures/digits-linf/tradeoff.svg").read_text()


def test_ranks_follow_what_other_runs_broke() -> None:
    fooled, other = full("fooled", 9000, 5000), full("other", 9000, 4000)
    lowered = BestKnown(fooled.run, 0.5, 0.3, lowered=2000, runs=("x",))
    board = make_leaderboard(
        SUITE, [fooled, other], load_suite(SUITE), best_known={fooled.run: lowered}
    )
    assert [entry.manifest.candidate for entry in board.ranked] == ["other", "fooled"]
    (row,) = (row for row in leaderboard_rows(board, None) if row.name == "fooled")
    assert (row.rank, row.best.fraction) == (2, 0.3)
    assert row.best.interval is not None
    assert row.best.interval.low < 0.3 < row.best.interval.high


def test_a_wide_interval_alone_is_drawn_whole() -> None:
    few = part("few", 30, 18)
    low, high = (100 * getattr(few.confidence_intervals["robust_accuracy"], end) for end in ENDS)
    rows = [row for row in rows_of([few, full("all", 9000, 6000)]) if row.kind != "published"]
    with drawing(4, 4) as sketch:
        limit_axes(sketch.axes, [row for row in rows if row.kind == "partial"], [], [])
        bottom, top = sketch.axes.get_ylim()
        assert bottom < low < high < top
        limit_axes(sketch.axes, rows, [], [])
        assert sketch.axes.get_ylim()[0] > low  # the others would be squeezed
