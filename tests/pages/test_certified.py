"""The certified leaderboard: rows, curves, envelopes, and what it is joined with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench.pages.build import build_report
from bench.pages.certified import CertifiedBoard, beside_base, certified_board
from bench.pages.repeated import repeated_trainings
from bench.runs.certification import Certification
from bench.store import Store
from bench.store.manifest import Manifest
from bench.store.records import Certificates, CertificationBlock

from .runs import make_manifest, save_run


def save_certification(
    store: Store, manifest: Manifest, radii: list[float], wrong: int, abstained: int
) -> None:
    """Right samples with these radii, then wrong ones and abstentions."""
    n = len(radii) + wrong + abstained
    index = np.arange(n)
    prediction = np.array([1] * len(radii) + [2] * wrong + [-1] * abstained)
    certificates = Certificates(
        index=index,
        label=np.ones(n, dtype=np.int64),
        prediction=prediction,
        radius=np.array([*radii, *[0.9] * wrong, *[0.0] * abstained]),
        certified_count=np.full(n, 90),
        noise_samples=np.full(n, 100),
    )
    kind = Certification()
    tables = kind.join([CertificationBlock(key="0", seconds=0, certificates=certificates)])
    folder = store.folder(manifest)
    with folder.locked():
        folder.begin(manifest)
        summary = kind.summarise(manifest, tables, [], {}, "2026-01-01T11:00:00+00:00")
        folder.finish(tables, summary, np.zeros((0, 1, 1, 1), np.float32))


def certification(candidate: str, sigma: float, **changes: object) -> Manifest:
    fields = {
        "kind": "certification",
        "protocol": "certified",
        "attacks": [],
        "engine": "certification",
        "engine_settings": {"sigma": sigma, "procedure": "fixed", "failure_probability": 0.001},
    }
    return make_manifest("digits-l2", candidate, 10, **(fields | changes))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "results")
    save_run(store, make_manifest("digits-l2", "ours-0.25", 10), 9, [8, 8, 7, 7])
    save_run(store, make_manifest("digits-l2", "other", 10), 9, [8, 8, 7, 7])
    narrow = [0.1, 0.2, 0.3, 0.4, 0.5, 0.5, 0.6]
    save_certification(store, certification("ours-0.25", 0.25), narrow, 2, 1)
    save_certification(store, certification("ours-1.00", 1.0), [0.3, 1.0, 1.2], 5, 2)
    imported = certification(
        "theirs",
        0.5,
        kind="imported-log",
        engine_settings={"sigma": 0.5},
        weights_sha256={},
        information={"source": "<b>paper</b>"},
        precision="as published",
    )
    save_certification(store, imported, [0.05] * 9, 1, 0)
    return store


def board_of(store: Store) -> CertifiedBoard:
    board = certified_board(store, "digits-l2", 0.5)
    assert board is not None
    return board


def test_rows_are_ranked_by_acr_and_joined_with_the_attacked_candidate(store: Store) -> None:
    board = board_of(store)
    assert [entry.manifest.candidate for entry in board.entries] == [
        "ours-0.25",
        "ours-1.00",
        "theirs",
    ]
    ours, wide, theirs = board.entries
    assert ours.attacked is not None
    assert ours.attacked.robust_accuracy == 0.7
    assert ours.attacked.robust_accuracy >= ours.accuracy_at(board.eps) == 0.3
    assert wide.attacked is None
    assert theirs.attacked is None
    assert [ours.accuracy_at(radius) for radius in (0, 0.2, 0.5, 0.51, 0.7)] == [
        *(0.7, 0.6, 0.3, 0.1, 0.0)
    ]
    assert ours.summary.certified.abstained == 0.1
    assert board.columns == [0.25, 0.75, 1.0]
    curve = ours.curve(board.grid)
    assert np.all(np.diff(curve) <= 0)
    assert curve[0] == ours.summary.clean_accuracy


def test_the_envelope_is_the_best_of_a_methods_sigmas(store: Store) -> None:
    board = board_of(store)
    assert list(board.methods) == ["ours", "theirs"]
    envelopes = board.envelopes
    assert list(envelopes) == ["ours"]
    small, large = (entry.curve(board.grid) for entry in board.methods["ours"])
    np.testing.assert_array_equal(envelopes["ours"], np.maximum(small, large))


def test_the_page_shows_both_kinds_and_escapes_sources(store: Store, tmp_path: Path) -> None:
    build_report(store, tmp_path / "reports")
    page = (tmp_path / "reports" / "digits-l2.html").read_text(encoding="utf-8")
    assert 'id="certified"' in page
    assert "Envelope over sigma" in page
    assert "&lt;b&gt;paper&lt;/b&gt;" in page
    assert "<b>paper</b>" not in page


def test_a_suite_without_certifications_has_no_such_section(tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    save_run(store, make_manifest("digits-l2", "other", 10), 9, [8, 8, 7, 7])
    assert certified_board(store, "digits-l2", 0.5) is None
    build_report(store, tmp_path / "reports")
    assert 'id="certified"' not in (tmp_path / "reports" / "digits-l2.html").read_text()


def test_trainings_that_differ_in_their_seed_alone_make_means(tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    for seed, radius in ((0, 0.4), (1, 0.6)):
        for recipe, gain in (("gaussian", 0.0), ("smoothmix", 0.2)):
            training = {"recipe": recipe, "settings": {"epochs": 3}, "seed": seed}
            manifest = certification(f"{recipe}-{seed}", 0.25, information={"training": training})
            save_certification(store, manifest, [radius + gain] * 5, 5, 0)
    other = {"recipe": "gaussian", "settings": {"epochs": 4}, "seed": 2}
    save_certification(
        store, certification("longer", 0.25, information={"training": other}), [3.0] * 10, 0, 0
    )
    repeated = repeated_trainings(board_of(store).entries)
    assert [each.recipe for each in repeated] == ["smoothmix", "gaussian"]
    assert repeated[1].seeds == [0, 1]
    assert repeated[1].average_certified_radius.mean == pytest.approx(0.25)
    assert repeated[1].average_certified_radius.deviation == pytest.approx(0.1 / 2**0.5)
    assert repeated[0].accuracy_at(0.75).mean == pytest.approx(0.25)
    build_report(store, tmp_path / "reports")
    page = (tmp_path / "reports" / "digits-l2.html").read_text()
    assert "Repeated trainings" in page
    assert "0.250 &plusmn; 0.071" in page
    # Also of a training without others that differ in their seed alone.
    assert [page.count(f"trained with seed {seed}<") for seed in range(3)] == [2, 2, 1]


def test_a_mix_stands_beside_its_robust_base(tmp_path: Path) -> None:
    store, page = Store(tmp_path / "results"), "digits-l2/mixed.html"
    of_base = "b" * 64
    mix = {"accurate": "a", "robust": "base", "definitions": {"accurate": "0", "robust": of_base}}
    weights = {"accurate": "a" * 64, "robust": "e" * 64}
    mixed = certification("mixed", 0.25, information={"mix": mix}, weights_sha256=weights)
    save_certification(store, mixed, [0.1, 0.2, 0.3, 0.6], 5, 1)
    longer = {"sigma": 0.25, "procedure": "fixed", "noise_samples": 9}
    other = certification("more-draws", 0.25, definition_sha256=of_base, engine_settings=longer)
    save_certification(store, other, [0.9] * 10, 0, 0)
    build_report(store, tmp_path / "reports")
    assert "What the mix buys" not in (tmp_path / "reports" / page).read_text()

    save_certification(
        store, certification("base", 0.25, definition_sha256=of_base), [0.6] * 3, 6, 1
    )
    board = board_of(store)
    pair = beside_base([each for each in board.entries if each.manifest == mixed], board)
    assert pair is not None
    assert pair.rows == [(0.0, 0.4, 0.3), (0.25, 0.2, 0.3), (0.5, 0.1, 0.3)]
    build_report(store, tmp_path / "reports")
    assert "What the mix buys" in (tmp_path / "reports" / page).read_text()
