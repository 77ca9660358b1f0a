"""Who is ranked, and where."""

from __future__ import annotations

from bench.pages.leaderboard import make_leaderboard
from bench.store.manifest import Selection
from bench.store.summary import Flag
from bench.suites import load_suite

from .runs import make_manifest, make_summary

SUITE = "cifar100-linf"
FLAG = Flag(name="doubtful", measured=1.0, threshold=0.5, meaning="It is.", advice="Look.")


def test_newest_full_run_of_each_candidate_is_ranked() -> None:
    runs = [
        make_summary(make_manifest(SUITE, "a", 100), 80, [30, 30, 30, 30]),
        make_summary(make_manifest(SUITE, "b", 100), 70, [40, 40, 40, 40]),
        make_summary(make_manifest(SUITE, "a", 100, seed=1), 80, [35, 35, 35, 35]),
        make_summary(
            make_manifest(
                SUITE,
                "b",
                10,
                overrides={"n_examples": 10},
                selection=Selection(kind="first", n=10),
            ),
            9,
            [9, 9, 9, 9],
        ),
        make_summary(make_manifest(SUITE, "c", 100), 60, [35, 35, 35, 35], flags=[FLAG]),
        make_summary(make_manifest(SUITE, "d", 100, suite_version=99), 90, [90, 90, 90, 90]),
        make_summary(make_manifest(SUITE, "e", 100, kind="sweep"), 90, [90, 90, 90, 90]),
    ]
    board = make_leaderboard(SUITE, runs, load_suite(SUITE))
    assert [(entry.rank, entry.manifest.candidate) for entry in board.ranked] == [
        (1, "b"),
        (2, "a"),
        (2, "c"),
    ]
    assert [entry.on_front for entry in board.ranked] == [True, True, False]
    assert [old.manifest.seed for old in board.ranked[1].older] == [0]
    assert [entry.manifest.candidate for entry in board.variants] == ["b"]
    assert board.variants[0].rank is None
    assert [entry.manifest.candidate for entry in board.outdated] == ["d"]


def test_published_numbers_are_attached_at_the_same_radius_only() -> None:
    claim = {"claim": "Bai2023Improving_edm"}
    runs = [
        make_summary(make_manifest(SUITE, "same", 100, information=claim), 85, [39] * 4),
        make_summary(
            make_manifest(
                SUITE,
                "other",
                100,
                information=claim,
                threat_model={"norm": "Linf", "eps": 4 / 255},
                overrides={"eps": 4 / 255},
            ),
            85,
            [60] * 4,
        ),
        make_summary(make_manifest(SUITE, "unknown", 100), 60, [42] * 4),
    ]
    board = make_leaderboard(SUITE, runs, load_suite(SUITE))
    unknown, same = board.ranked
    assert [each.published for each in same.accuracies] == [0.8521, 0.3872, 0.3872]
    assert same.standing is None
    assert unknown.claim is None
    assert unknown.standing == 3  # two published models have 42.66 and 42.25
    assert board.variants[0].claim is None
    assert board.variants[0].distant_claim is not None


def test_a_suite_of_a_users_own_is_known_by_its_runs() -> None:
    run = make_summary(make_manifest(SUITE, "a", 50, name="mine"), 40, [20] * 4)
    board = make_leaderboard("mine", [run], None)
    assert board.title == "mine"
    assert [entry.rank for entry in board.ranked] == [1]
    assert len(board.published) == 38
