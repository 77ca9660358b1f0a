"""Comparisons: counts, how samples fell, which pairs have a page, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import bench
from bench.cli import main
from bench.errors import InputError
from bench.pages.addresses import comparison_page
from bench.pages.boards import leaderboards
from bench.pages.compared_pairs import BEST, compared_pairs
from bench.pages.comparison import MOST_RUNS, compare_runs, passes_until_broken
from bench.pages.comparison_page import comparison_pages
from bench.pages.run_choice import chosen_runs
from bench.pages.site import site_environment
from bench.runs.evaluation import Evaluation
from bench.store import RunFolder, Store
from bench.store.best_known import best_known
from bench.store.gallery import pack_gallery
from bench.store.manifest import DatasetRecord
from bench.store.records import FAILED, AttackBlock, Attempts, CleanResults, Witnesses

from .runs import make_manifest, make_summary, save_run

N = 6
LONG = "\N{CHICKEN}/" * 150


def attacked(
    store: Store, name: str, broken: dict[int, int], failed: Sequence[int] = (), **changes: Any
) -> RunFolder:
    """Save a run in which apgd-ce broke some samples at given steps, and failed on others.

    Sample 5 is always wrong.
    """
    manifest = make_manifest("digits-linf", name, N, **changes)
    index = np.arange(N)
    right = np.arange(N - 1)
    prediction = np.where(index == 5, 0, index)
    steps = np.array([broken.get(place, -1) for place in right])
    fell = np.array(sorted(broken))
    images = np.linspace(0, 1, N * 64, dtype=np.float32).reshape(N, 1, 8, 8)
    witnesses = Witnesses(fell, np.array(["apgd-ce"] * len(fell)), fell + 1, images[fell] * 0.5)
    tables = Evaluation().join(
        [
            AttackBlock(key="clean", seconds=1.0, clean=CleanResults(index, index, prediction)),
            AttackBlock(
                key="attack",
                seconds=1.0,
                attempts=Attempts(
                    right,
                    np.array(["apgd-ce"] * (N - 1)),
                    np.where(
                        steps >= 0, "broken", np.where(np.isin(right, failed), FAILED, "survived")
                    ),
                    steps,
                    np.where(steps >= 0, steps + 1.0, 101.0),
                    np.where(steps >= 0, steps + 0.0, 100.0),
                    np.ones(N - 1),
                ),
                witnesses=witnesses,
            ),
        ]
    )
    folder = store.folder(manifest)
    standing = N - 1 - len(broken) - len(failed)
    with folder.locked():
        folder.begin(manifest)
        folder.finish(tables, make_summary(manifest, N - 1, [standing] * 4), images[fell])
    (folder.path / "gallery.npz").write_bytes(pack_gallery(witnesses, images[fell]))
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Store:
    found = Store(tmp_path / "results")
    attacked(found, "strong", {1: 7})
    attacked(found, "<script>alert(1)</script>", {0: 2, 1: 3, 4: 90})
    attacked(found, LONG, {0: 5, 3: 8}, weights_sha256={"weights": "a" * 64})
    return found


def test_samples_are_paired_and_tell_how_they_fell(store: Store) -> None:
    runs = [folder.summary() for folder in store.runs()]
    order = {"strong": 0, "<script>alert(1)</script>": 1, LONG: 2}
    compared = compare_runs(store, sorted(runs, key=lambda run: order[run.manifest.candidate]))
    counts = compared.pairs[0].counts
    assert (counts.both, counts.only_first, counts.only_second, counts.neither) == (2, 2, 0, 2)
    assert compared.differing_index == [0, 1, 3, 4]
    differing = {each.index: each.falls for each in compared.differing(10)}
    assert list(differing) == [0, 1, 3, 4]
    assert str(differing[4][1]) == "broken by apgd-ce, step 90"
    assert differing[4][0] is None
    assert differing[1][0] is not None
    assert (differing[1][0].step, differing[1][0].prediction) == (7, 2)
    assert 3 in [each.index for each in compared.differing(3, wanted=[3])]
    passes, most = passes_until_broken(compared, 1)
    assert passes.tolist() == [0, 5, 7, 181]
    assert most == 201


def test_a_failure_is_no_witness(tmp_path: Path) -> None:
    store = Store(tmp_path)
    whole = attacked(store, "one", {0: 3}).summary()
    failing = attacked(store, "one", {1: 4}, failed=[2, 3], seed=1).summary()
    found = best_known(store, whole)
    assert (found.lowered, found.runs) == (1, (failing.run,))
    compared = compare_runs(store, [whole, failing])
    falls = {each.index: each.falls for each in compared.differing(10)}
    assert str(falls[2][1]) == str(falls[3][1]) == "the candidate failed"
    assert str(falls[1][1]) == "broken by apgd-ce, step 4"


def test_pages_compare_hostile_names_and_show_pictures(store: Store, tmp_path: Path) -> None:
    (board,) = leaderboards(store)
    made = comparison_pages(site_environment(), store, board)
    pages = {page.address: page.render() for page in made}
    assert len(pages) == 3
    for address, text in pages.items():
        assert len(address.rpartition("/")[2].encode()) <= 255
        assert ".." not in address.split("/")
        assert "<script>alert(" not in text
        assert text.count("data:image/png;base64,") > 1
    page = pages[comparison_page("digits-linf", ["strong", "<script>alert(1)</script>"])]
    assert "broken by apgd-ce, step 90" in page
    assert "&lt;script&gt;alert(1)" in page


def test_the_number_of_pages_does_not_grow_with_the_square(tmp_path: Path) -> None:
    found = Store(tmp_path)
    for place in range(20):
        standing = [90 - 4 * place] * 4
        digest = {"weights": f"{place:064}"}
        manifest = make_manifest("digits-linf", f"c{place}", 100, weights_sha256=digest)
        save_run(found, manifest, 99, standing)
    mix = {"mix": {"accurate": "c17", "robust": "c18"}}
    save_run(found, make_manifest("digits-linf", "mix", 100, information=mix), 99, [1] * 4)
    (board,) = leaderboards(found)
    pairs = [tuple(run.manifest.candidate for run in pair) for pair in compared_pairs(board)]
    assert len(pairs) == BEST * (BEST - 1) // 2 + 2
    assert ("mix", "c17") in pairs
    assert ("c0", "c7") in pairs
    assert ("c0", "c8") not in pairs


def test_what_cannot_be_compared_is_refused_in_one_sentence(store: Store, tmp_path: Path) -> None:
    data = DatasetRecord(name="digits", sha256="c" * 64, size=100)
    attacked(store, "other-data", {1: 1}, dataset=data)
    wide = make_manifest("digits-linf", "wide", N).threat_model.model_copy(update={"eps": 0.3})
    attacked(store, "wide", {1: 1}, threat_model=wide, overrides={"eps": 0.3})
    results = ["--results-dir", str(store.root), "--suite", "digits-linf"]
    for names, message in (
        (["strong", "other-data"], "expected runs on the same samples"),
        (["strong", "wide"], "expected runs under one threat model, got Linf, eps = 0.2 and"),
        (["strong", "strong"], "expected different runs"),
        (["strong"], f"expected 2 to {MOST_RUNS} runs"),
        (["strong", "none"], "no complete run 'digits-linf/none'"),
    ):
        result = CliRunner().invoke(main, ["diff", *names, *results])
        assert result.exit_code == 2
        assert message in result.stderr
        assert len(result.stderr.splitlines()) == 1


def test_diff_prints_the_table_and_writes_a_page_that_stands_alone(
    store: Store, tmp_path: Path
) -> None:
    out = tmp_path / "new" / "one.html"
    names = ["digits-linf/strong", "digits-linf/<script>alert(1)</script>"]
    result = CliRunner().invoke(
        main, ["diff", *names, "--results-dir", str(store.root), "--out", str(out)]
    )
    assert result.exit_code == 0, result.output
    assert "6 shared samples of digits" in result.stdout
    assert "broken by apgd-ce, step 90" in result.stdout
    text = out.read_text(encoding="utf-8")
    assert 'href="../' not in text
    assert ".html" not in text


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        (
            {"a": ["standard 4", "express 6", "standard 3"], "b": ["express 6", "standard 4"]},
            [1, 0],
        ),
        ({"a": ["standard 4", "express 6"], "b": ["standard 4", "express 3"]}, [0, 0]),
        ({"a": ["standard 4", "express 6"], "b": ["standard 4", "express 4"]}, [1, 1]),
        ({"a": ["standard 4", "standard 6"], "b": ["express 6", "express 4"]}, [1, 0]),
    ],
    ids=["one-protocol", "most-samples", "newest", "no-pair-of-one-protocol"],
)
def test_comparable_runs_are_chosen(
    tmp_path: Path, runs: dict[str, list[str]], expected: list[int]
) -> None:
    store = Store(tmp_path)
    for name, its in runs.items():
        for place, text in enumerate(its):
            protocol, n = text.split()
            kind = "express" if protocol == "express" else "evaluation"
            overrides = {} if n == "6" else {"n_examples": int(n)}
            changes = {"kind": kind, "protocol": protocol, "overrides": overrides}
            manifest = make_manifest("digits-linf", name, int(n), **changes)
            save_run(store, manifest, 2, [1] * 4, finished=f"2026-01-0{place + 1}T11:00:00+00:00")
    chosen = chosen_runs(store, ["digits-linf/a", "digits-linf/b"])
    wanted = [runs[name][place] for name, place in zip(runs, expected, strict=True)]
    assert [f"{run.manifest.protocol} {run.n_examples}" for run in chosen] == wanted
    named = f"digits-linf/a@{store.summaries(candidate='a')[0].run}"
    assert chosen_runs(store, [named, "digits-linf/b"])[0].run in named


def test_different_attacks_are_told(store: Store) -> None:
    attacked(store, "short", {1: 7}, kind="express", protocol="express")
    names = ["digits-linf/strong", "digits-linf/short"]
    result = CliRunner().invoke(main, ["diff", *names, "--results-dir", str(store.root)])
    assert result.exit_code == 0, result.output
    assert "The runs were made by different attacks (express; standard), so a part" in result.stdout
    strong, short = (bench.load(name, results_dir=store.root) for name in names)
    compared = strong.compare(short)
    assert compared.protocols == ("standard", "express")
    assert compared.clean_accuracies == (5 / 6, 5 / 6)
    assert "different attacks" in compared.notices[0]
    assert not strong.compare(strong).notices


def test_a_damaged_table_is_named(store: Store) -> None:
    folder = store.runs(candidate="strong")[0]
    (folder.path / "samples.parquet").write_bytes(b"no table")
    with pytest.raises(InputError, match="damaged"):
        compare_runs(store, store.summaries()[:3])
