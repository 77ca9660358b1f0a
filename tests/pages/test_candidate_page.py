"""Pages of candidates: what they draw, what they leave out, and records of any kind."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.pages.addresses import candidate_page
from bench.pages.boards import leaderboard_of
from bench.pages.calibration import reliability
from bench.pages.candidate_page import candidate_pages
from bench.pages.candidate_records import CandidateRecords
from bench.pages.command import command_of
from bench.pages.passes import passes_curve
from bench.pages.site import site_environment
from bench.runs.evaluation import Evaluation
from bench.store import RunFolder, Store
from bench.store.manifest import Selection
from bench.store.records import AttackBlock, Attempts, CleanResults, Witnesses
from bench.suites import load_suite

from .runs import make_manifest, make_summary

MOST_BYTES = 3_000_000
HOSTILE = "</script><script>alert(1)</script>/../\N{CHICKEN}"


def attacked_run(
    store: Store,
    name: str,
    n: int = 40,
    shape: tuple[int, int, int] = (1, 8, 8),
    classes: int = 10,
    suite: str = "digits-linf",
    broken: int | None = None,
    **changes: Any,
) -> RunFolder:
    """Save a run whose last sample is wrong, and of whose others apgd-ce broke the first ones."""
    manifest = make_manifest(suite, name, n, **changes)
    index, label = np.arange(n), np.arange(n) % classes
    prediction = np.where(index == n - 1, (label + 1) % classes, label)
    right = index[:-1] if n > 1 else index[:0]
    count = len(right) // 2 if broken is None else broken
    draws = np.random.default_rng(0)
    clean = draws.integers(0, 256, (count, *shape)).astype(np.float32) / np.float32(255)
    images = np.clip(clean + draws.choice([-0.03, 0.03], clean.shape), 0, 1).astype(np.float32)
    fell = right < count
    blocks = [
        AttackBlock(key="0", seconds=1.0, clean=CleanResults(index, label, prediction)),
        AttackBlock(
            key="1",
            seconds=1.0,
            attempts=Attempts(
                right,
                np.full(len(right), "apgd-ce"),
                np.where(fell, "broken", "survived"),
                np.where(fell, right + 1, -1),
                np.zeros(len(right)),
                np.where(fell, right + 1.0, 100.0),
                np.zeros(len(right)),
            ),
            witnesses=None
            if not count
            else Witnesses(
                right[:count],
                np.full(count, "apgd-ce"),
                (label[:count] + 1) % classes,
                images,
            ),
        ),
    ]
    tables = Evaluation().join(blocks)
    confidence = draws.uniform(0.2, 1.0, n)
    tables.samples["clean_confidence"] = np.where(index % 7 == 3, np.nan, confidence)
    tables.samples["clean_label_probability"] = confidence
    tables.samples["adversarial_confidence"] = np.where(index < count, confidence, np.nan)
    tables.samples["eight_bit_robust"] = tables.samples["robust"]
    robust = int(tables.samples["robust"].sum())
    summary = make_summary(manifest, len(right), (robust,) * 4)
    folder = store.folder(manifest)
    with folder.locked():
        folder.begin(manifest)
        folder.finish(tables, summary, clean)
    return folder


def page_of(store: Store, suite: str, name: str) -> str:
    made = candidate_pages(site_environment(), store, leaderboard_of(store, suite))
    pages = {page.address: page.render() for page in made}
    text = pages[candidate_page(suite, name)]
    assert len(text.encode()) < MOST_BYTES
    return text


def numbers_of(page: str) -> Any:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found
    return json.loads(found[1])


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "results")


def test_page_shows_every_figure_and_all_numbers(store: Store) -> None:
    attacked_run(store, HOSTILE)
    page = page_of(store, "digits-linf", HOSTILE)
    assert "alert(1)</script>" not in page
    assert page.count('class="shot"') == 19
    assert len(re.findall(r'src="data:image/png;base64,', page)) == 3 * 19
    for title in ("converged", "Class by class", "Calibration", "Gallery", "Provenance"):
        assert title in page
    numbers = numbers_of(page)
    assert numbers["samples"]["step"][:3] == [1, 2, 3]
    assert sum(map(sum, numbers["confusion"]["counts"])) == 40
    assert numbers["summary"]["manifest"]["candidate"] == HOSTILE
    assert "did not record" not in page


def test_the_page_is_about_the_run_with_the_most_images(store: Store) -> None:
    attacked_run(store, "net", 20, overrides={"n_examples": 20})
    attacked_run(store, "net", 40, kind="express", protocol="express")
    wide = load_suite("digits-linf").threat_model.model_copy(update={"eps": 0.3})
    attacked_run(store, "net", 60, threat_model=wide, overrides={"eps": 0.3})
    shown = numbers_of(page_of(store, "digits-linf", "net"))["summary"]
    assert (shown["manifest"]["protocol"], shown["n_examples"]) == ("express", 40)
    attacked_run(store, "net", 30)
    shown = numbers_of(page_of(store, "digits-linf", "net"))["summary"]
    assert (shown["manifest"]["protocol"], shown["n_examples"]) == ("standard", 30)


def test_run_of_an_earlier_release_says_how_to_get_what_is_missing(store: Store) -> None:
    folder = attacked_run(store, "old")
    (folder.path / "gallery.npz").unlink()
    columns = [name for name in folder.samples() if "confidence" not in name]
    samples = folder.samples()[columns]
    samples.to_parquet(folder.path / "samples.parquet")
    page = page_of(store, "digits-linf", "old")
    assert "did not record the candidate" in page
    assert "did not keep clean images" in page
    assert "bench run --suite digits-linf --candidate old" in page


@pytest.mark.parametrize(
    ("n", "shape", "classes", "broken"),
    [
        (1, (1, 8, 8), 10, 0),
        (230, (3, 32, 32), 10, 229),
        (20, (3, 224, 224), 1000, 8),
    ],
)
def test_records_of_any_size_give_a_page(
    store: Store, n: int, shape: tuple[int, int, int], classes: int, broken: int
) -> None:
    names = [f"class <{number}>" for number in range(classes)]
    attacked_run(store, "n" * 300, n, shape, classes, broken=broken, information={"classes": names})
    page = page_of(store, "digits-linf", "n" * 300)
    assert ("Most frequent confusions" in page) == (classes > 20)
    assert ("No attack broke a sample" in page) == (broken == 0)
    assert page.count('class="shot"') <= 200
    assert "&lt;0&gt;" in page
    assert "<0>" not in page


def test_damaged_tables_leave_a_notice(store: Store) -> None:
    folder = attacked_run(store, "mine")
    (folder.path / "samples.parquet").write_bytes(b"no table")
    assert "Not on this page" in page_of(store, "digits-linf", "mine")


def test_passes_curve_goes_from_clean_to_robust_accuracy(store: Store) -> None:
    folder = attacked_run(store, "mine")
    summary: Any = folder.summary()
    curve = passes_curve(CandidateRecords(summary, folder.samples(), folder.attempts()))
    assert curve is not None
    assert curve.accuracy[0] == 39 / 40
    assert curve.accuracy[-1] == summary.robust_accuracy
    assert (np.diff(curve.accuracy) <= 0).all()
    assert (np.diff(curve.passes) > 0).all()
    assert curve.ends == ((100.0, "apgd-ce"),)
    assert curve.broke_late == 0


@given(
    st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=50),
    st.integers(1, 20),
)
def test_calibration_error_is_bounded_and_sees_every_sample(
    pairs: list[tuple[float, bool]], bins: int
) -> None:
    confidence, right = np.array([p for p, _ in pairs]), np.array([r for _, r in pairs])
    found = reliability(confidence, right, bins)
    assert found.n == len(pairs)
    assert abs(found.mean_confidence - found.mean_accuracy) <= found.error + 1e-9 <= 1 + 2e-9
    assert found.mean_accuracy == pytest.approx(right.mean())


def test_command_makes_the_same_run() -> None:
    manifest = make_manifest(
        "digits-linf",
        "my folder",
        7,
        engine="fast",
        engine_settings={},
        seed=3,
        selection=Selection(kind="random", n=7, seed=5, population=360),
        overrides={"n_examples": 7, "sample": "random", "eps": 1 / 3},
        threat_model={"norm": "Linf", "eps": 1 / 3},
        attacks=[{"name": "witnesses"}, {"name": "apgd-ce"}, {"name": "until-converged"}],
    )
    assert command_of(manifest) == (
        "bench run --suite digits-linf --candidate 'my folder' --protocol standard --precision "
        "float32 --seed-witnesses --until-converged --n-examples 7 --sample random --sample-seed 5 "
        "--eps 85/255 --seed 3"
    )
    drawing = manifest.model_copy(update={"engine_settings": {"batch_size": 40}})
    assert "--batch-size 40" in str(command_of(drawing))  # its answers depend on the batch
    listed = manifest.model_copy(update={"selection": Selection(kind="listed", n=7)})
    assert command_of(listed) is None
