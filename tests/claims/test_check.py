"""`bench check`: verdicts that have teeth, and leave chance alone."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

import bench
from bench import data
from bench.claims.accepted import accepted_row
from bench.claims.accepted_records import AcceptedRecords, load_records, records_of, update_records
from bench.claims.certified import load_certified_claims, read_certified_claims
from bench.claims.check import check
from bench.claims.comparison import Check
from bench.claims.formats import verdict_text
from bench.claims.verdict import Published, compare_same_samples, compare_with_sample
from bench.cli import main
from bench.errors import InputError
from bench.runs.evaluation import Evaluation
from bench.store import Store
from bench.store.best_known import best_known
from bench.store.manifest import Selection
from bench.store.records import AttackBlock, Attempts, CleanResults, Witnesses
from bench.store.selection import interval_of
from bench.store.summary import AttackedSummary, AttackSummary, Summary
from tests.pages.runs import ATTACKS, make_manifest, save_run, save_unreadable

CIFAR = "cifar100-linf"
MODEL = "Wang2023Better_WRN-70-16"  # 75.22 clean, 42.67 AutoAttack, 42.66 best known
ALL = Selection(kind="all", n=10_000)


def _random(n: int) -> Selection:
    return Selection(kind="random", n=n, seed=0, population=10_000)


@pytest.mark.parametrize(
    ("successes", "selection", "assume", "outcome"),
    [
        (4267, ALL, False, "reproduced"),
        (4259, ALL, False, "reproduced"),
        (4250, ALL, False, "lower than published"),
        (4300, ALL, False, "higher than published"),
        (2140, _random(5000), False, "cannot tell"),
        (3200, _random(7500), False, "reproduced"),
        (200, _random(1000), False, "lower than published"),
        (427, _random(1000).model_copy(update={"round": 100}), False, "cannot tell"),
        (200, _random(1000).model_copy(update={"round": 100}), False, "lower than published"),
        (200, Selection(kind="first", n=1000), False, "cannot tell"),
        (200, Selection(kind="first", n=1000), True, "lower than published"),
    ],
)
def test_verdicts(successes: int, selection: Selection, assume: bool, outcome: str) -> None:
    published = Published(0.4267, 10_000, 0.5e-4)
    verdict = compare_with_sample(published, successes, selection.n, selection, 0.001, assume)
    assert verdict.outcome == outcome
    if outcome == "cannot tell":
        assert "n >= " in verdict.note


def test_a_number_printed_without_decimals_is_a_range() -> None:
    printed = Published(0.60, 500, 0.005)
    assert printed.nearest(0.597) == 298
    selection = Selection(kind="all", n=500)
    assert compare_with_sample(printed, 298, 500, selection, 0.0).outcome == "reproduced"
    assert compare_with_sample(printed, 290, 500, selection, 0.0).outcome == "lower than published"


@pytest.mark.parametrize(
    ("lost", "gained", "outcome"),
    [
        (0, 0, "reproduced"),
        (1, 0, "reproduced"),
        (3, 3, "reproduced"),
        (11, 0, "lower than published"),
        (30, 19, "lower than published"),
        (0, 11, "higher than published"),
    ],
)
def test_luck_is_told_from_loss_on_the_same_samples(lost: int, gained: int, outcome: str) -> None:
    assert compare_same_samples(lost, gained, 360, 0.001).outcome == outcome


def _save_published(root: Path, clean: int, robust: int, n: int = 10_000) -> Store:
    store = Store(root)
    manifest = make_manifest(
        CIFAR,
        f"robustbench:{MODEL}",
        n,
        selection=Selection(kind="all" if n == 10_000 else "first", n=n),
        overrides={} if n == 10_000 else {"n_examples": n},
        information={"claim": MODEL},
    )
    index = np.arange(n)
    folder = save_run(store, manifest, clean, [robust] * 4)
    label = np.zeros(n, np.int64)
    prediction = np.where(index < clean, 0, 1)
    witnesses = Witnesses(
        index[robust:clean],
        np.full(clean - robust, "apgd-ce"),
        np.ones(clean - robust, np.int64),
        np.zeros((clean - robust, 1, 1, 1), np.float32),
    )
    block = AttackBlock(
        key="0", seconds=1.0, clean=CleanResults(index, label, prediction), witnesses=witnesses
    )
    folder.finish(Evaluation().join([block]), folder.summary(), witnesses.images)
    return store


def _of(checks: Sequence[Check], quantity: str) -> Check:
    (found,) = [each for each in checks if each.name == MODEL and each.quantity == quantity]
    return found


def test_published_numbers_and_exit_codes(tmp_path: Path) -> None:
    right = _save_published(tmp_path / "right", 7522, 4267)
    checks = check(right, CIFAR, MODEL)
    assert [each.verdict.outcome for each in checks] == ["reproduced"] * 3
    assert not any(each.fails for each in checks)

    wrong = check(_save_published(tmp_path / "wrong", 7600, 4100), CIFAR)
    assert _of(wrong, "clean").verdict.outcome == "higher than published"
    assert _of(wrong, "clean").fails
    assert _of(wrong, "AutoAttack").verdict.outcome == "lower than published"
    assert _of(wrong, "AutoAttack").verdict.p_value == 0
    other = [each for each in wrong if each.name == "Bai2023Improving_edm"]
    assert {each.verdict.outcome for each in other} == {"not measured"}

    def call(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(main, ["check", "--suite", CIFAR, *arguments])
        return result.exit_code, result.output

    results = f"--results-dir={tmp_path}/wrong"
    assert call(results)[0] == 4
    assert call(f"--results-dir={tmp_path}/right")[0] == 0
    code, text = call(results, "--format", "json", "--candidate", MODEL)
    assert code == 4
    assert [each["fails"] for each in json.loads(text)] == [True, True, True]
    code, text = call(results, "--format", "junit")
    suite = ElementTree.fromstring(text.split("\n", 1)[1]).find("testsuite")
    assert suite is not None
    assert suite.get("failures") == "3"
    code, text = call(results, "--format", "github")
    assert len([line for line in text.splitlines() if line.startswith("::error title=")]) == 3
    assert "25 (n = 10000)" in text
    assert call(results, "--candidate", "nobody")[0] == 2
    code, text = call("--plan", "--candidate", MODEL)
    assert code == 0
    assert "7,211" in text


def test_a_run_that_cannot_be_read_fails_no_other_candidate(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = _save_published(tmp_path, 7522, 4267)
    before = check(store, CIFAR)
    save_unreadable(store, CIFAR)
    assert check(store, CIFAR) == before
    assert "old-candidate" in caplog.text


def test_a_run_with_a_damaged_table_counts_as_not_measured(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = _save_published(tmp_path, 7522, 4267)
    before = check(store, CIFAR)
    for path in tmp_path.rglob("samples.parquet"):
        path.write_bytes(path.read_bytes()[:100])
    after = check(store, CIFAR)
    assert len(after) == len(before)
    assert all(each.measured is None for each in after)
    assert "samples.parquet" in caplog.text


def test_a_first_selection_cannot_tell_unless_it_is_said_to_be_random(tmp_path: Path) -> None:
    store = _save_published(tmp_path, 748, 300, n=1000)
    assert _of(check(store, CIFAR), "AutoAttack").verdict.outcome == "cannot tell"
    assumed = check(store, CIFAR, assume_exchangeable=True)
    assert _of(assumed, "AutoAttack").verdict.outcome == "lower than published"
    assert _of(assumed, "clean").verdict.outcome == "cannot tell"


EPS = 0.05


@functools.cache
def _digits() -> data.Dataset:
    return data.load("digits")


def _outcomes(module: nn.Module) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, clean predictions, and predictions under the strongest attack on a linear network.

    For each wrong class the image that raises its logit the most over the right one's is exact.
    """
    samples = _digits()
    (layer,) = (part for part in module if isinstance(part, nn.Linear))
    with torch.no_grad():
        clean = module(samples.images).max(dim=1)[1]
        attacked = clean.clone()
        for target in range(10):
            step = layer.weight[target] - layer.weight[samples.labels]
            images = samples.images + EPS * step.sign().view_as(samples.images)
            prediction = module(images.clamp(0, 1)).max(dim=1)[1]
            attacked = torch.where(attacked == samples.labels, prediction, attacked)
    return samples.labels.numpy(), clean.numpy(), attacked.numpy()


def _save_outcomes(
    store: Store,
    module: nn.Module,
    weights: str,
    finished: str,
    missed: int = 0,
    **changes: Any,
) -> Summary:
    """Save a run that misses some samples that can be broken; keywords change its manifest."""
    labels, clean, attacked = _outcomes(module)
    can_fall = np.flatnonzero((clean == labels) & (attacked != labels))
    attacked[can_fall[:missed]] = labels[can_fall[:missed]]
    n = len(labels)
    manifest = make_manifest(
        "digits-linf", "linear", n, weights_sha256={"weights": weights}, **changes
    )
    index = np.arange(n)
    right, broken = clean == labels, (clean == labels) & (attacked != labels)
    witnesses = Witnesses(
        index[broken],
        np.full(int(broken.sum()), "apgd-ce"),
        attacked[broken],
        np.zeros((int(broken.sum()), 1, 1, 1), np.float32),
    )
    nothing = np.zeros(int(right.sum()))
    attempts = Attempts(
        index[right],
        np.full(int(right.sum()), "apgd-ce"),
        np.where(broken[right], "broken", "survived"),
        np.full(int(right.sum()), -1),
        nothing,
        nothing,
        nothing,
    )
    block = AttackBlock(
        key="0",
        seconds=1.0,
        clean=CleanResults(index, labels, clean),
        attempts=attempts,
        witnesses=witnesses,
    )
    tables = Evaluation().join([block])
    robust = int(tables.samples["robust"].sum())
    selection = manifest.selection
    summary = AttackedSummary(
        manifest=manifest,
        run=manifest.run,
        n_examples=n,
        clean_accuracy=right.mean(),
        autoattack_accuracy=robust / n,
        robust_accuracy=robust / n,
        eight_bit_robust_accuracy=robust / n,
        confidence_intervals={"robust_accuracy": interval_of(selection, robust, n)},
        attacks=[
            AttackSummary(
                name=name,
                attempted=n,
                broken=0,
                accuracy_after=robust / n,
                seconds=0,
                forward_passes=0,
                backward_passes=0,
            )
            for name in ATTACKS
        ],
        flags=[],
        seconds=0,
        started="",
        finished=finished,
    )
    folder = store.folder(manifest)
    with folder.locked():
        folder.begin(manifest)
        folder.finish(tables, summary, witnesses.images)
    return summary


def _weaker(module: nn.Module, seed: int, points: float) -> nn.Module:
    """A copy whose weights drift in one random direction until robust accuracy fell by `points`."""
    labels, _, attacked = _outcomes(module)
    start = float((attacked == labels).mean())
    (layer,) = (part for part in module if isinstance(part, nn.Linear))
    direction = torch.randn(layer.weight.shape, generator=torch.Generator().manual_seed(seed))
    for step in range(1, 200):
        drifted = nn.Linear(64, 10)
        with torch.no_grad():
            drifted.weight.copy_(layer.weight + 0.05 * step * layer.weight.std() * direction)
            drifted.bias.copy_(layer.bias)
        candidate = nn.Sequential(nn.Flatten(), drifted)
        labels, _, attacked = _outcomes(candidate)
        if start - float((attacked == labels).mean()) >= points:
            return candidate
    raise AssertionError("the drift never lowered the accuracy")


def test_three_points_are_seen_and_nothing_is_not(linear_digits: nn.Module, tmp_path: Path) -> None:
    for seed in range(20):
        store = Store(tmp_path / str(seed))
        first = _save_outcomes(store, linear_digits, "a" * 64, "2026-01-01T00:00:00+00:00")
        paired = accepted_row(first)
        # The accepted run itself need not be in the store.
        both = [[paired], [paired.model_copy(update={"run": "0" * 12})]]
        for accepted in both:
            unchanged = check(store, "digits-linf", accepted=AcceptedRecords(accepted))
            assert [each.verdict.outcome for each in unchanged] == ["reproduced"] * 3
        weaker = _weaker(linear_digits, seed, 0.03)
        second = _save_outcomes(store, weaker, "b" * 64, "2026-01-02T00:00:00+00:00")
        assert second.robust_accuracy <= first.robust_accuracy - 0.03
        for accepted in both:
            changed = check(store, "digits-linf", accepted=AcceptedRecords(accepted))
            (found,) = (each for each in changed if each.quantity == "AutoAttack")
            assert found.verdict.outcome == "lower than published", seed
            assert found.fails
            assert ("paired by sample" in found.verdict.note) is (accepted == both[0])


def test_attacks_beyond_the_protocol_do_not_fail_an_accepted_number(
    linear_digits: nn.Module, tmp_path: Path
) -> None:
    store = Store(tmp_path)
    run = _save_outcomes(store, linear_digits, "a" * 64, "2026-01-01T00:00:00+00:00", missed=20)
    more = _save_outcomes(
        store, linear_digits, "a" * 64, "2026-01-02T00:00:00+00:00", protocol="adaptive"
    )
    assert best_known(store, run).robust_accuracy == more.robust_accuracy < run.robust_accuracy
    found = check(store, "digits-linf", accepted=AcceptedRecords([accepted_row(run)]))
    assert [(each.quantity, each.verdict.outcome) for each in found] == [
        (quantity, "reproduced") for quantity in ("clean", "AutoAttack", "robust")
    ]


def test_a_run_on_other_samples_is_said_to_be_one(linear_digits: nn.Module, tmp_path: Path) -> None:
    store = Store(tmp_path)
    run = _save_outcomes(store, linear_digits, "a" * 64, "2026-01-01T00:00:00+00:00")
    of_more = accepted_row(run).model_copy(update={"n_examples": 9999})
    for each in check(store, "digits-linf", accepted=AcceptedRecords([of_more])):
        assert each.verdict.outcome == "not measured"
        assert verdict_text(each).startswith(
            f"not comparable: measured on {run.n_examples} samples"
        )


def test_wrong_rows_are_named(tmp_path: Path) -> None:
    assert len(load_certified_claims()) == 11
    shipped = Path("bench/claims/certified.csv").read_text(encoding="utf-8")
    path = tmp_path / "certified.csv"
    for old, new, expected in [
        (",the paper's table of CIFAR-10 results", ",", "row 2: field source"),
        ("77.1", "177.1", "row 2: field certified_acc: .*percentage"),
        ("77.1", "", "row 2: .*either a radius"),
        ("cifar10,L2", "cifar11,L2", "row 2: field dataset"),
    ]:
        path.write_text(shipped.replace(old, new, 1), encoding="utf-8")
        with pytest.raises(InputError, match=rf"certified\.csv: {expected}"):
            read_certified_claims(path)


def _own_suite(folder: Path) -> Path:
    """A suite of a user's own, which no package has, on the digits."""
    path = folder / "mine.yaml"
    shipped = Path("bench/suites/digits-linf.yaml").read_text(encoding="utf-8")
    path.write_text(shipped.replace("name: digits-linf", "name: mine", 1), encoding="utf-8")
    return path


def _save(folder: Path, clean: int, robust: int, **changes: Any) -> Summary:
    """Save a run of 360 samples whose table agrees with its accuracies."""
    index = np.arange(360)
    columns = {"clean_correct": index < clean, "robust": index < robust}
    manifest = make_manifest("digits-linf", "net", 360, **changes)
    return save_run(Store(folder), manifest, clean, [robust] * 4, columns=columns).summary()


def _call(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, list(arguments))
    return result.exit_code, result.output


def test_results_of_ones_own_are_accepted_and_checked(tmp_path: Path) -> None:
    suite, kept = _own_suite(tmp_path), f"--accepted={tmp_path / 'kept'}"
    before, after, none = (f"--results-dir={tmp_path / name}" for name in ("old", "new", "none"))
    run = _save(tmp_path / "old", 350, 190, name="mine").run
    _save(tmp_path / "new", 350, 150, name="mine")
    assert _call("accept", "mine/net", kept, before) == (
        0,
        f"mine/net@{run}: accepted in {tmp_path / 'kept'}\n",
    )
    asked = ("check", kept, "--suite", str(suite), "--candidate=net")
    assert _call(*asked, before)[0] == 0
    code, text = _call(*asked, after)
    assert code == 4
    assert "mine/net: robust lower than published: paired by sample: 40 lost" in text
    table = bench.check(str(suite), "net", results_dir=tmp_path / "new", accepted=tmp_path / "kept")
    assert table["fails"].tolist() == [False, True, True]
    # A second folder with the same run changes nothing: each of them is compared sample by sample.
    twice = _call(*asked, kept, after)[1]
    assert twice.count("robust lower than published: paired by sample: 40 lost") == 2
    # Without --suite as well, beside all numbers of the package.
    assert _call("check", kept, after)[0] == 4
    assert _call("accept", "mine/net", kept, after)[0] == 0
    assert _call(*asked, after)[0] == 0
    assert len((tmp_path / "kept" / "accepted.csv").read_text().splitlines()) == 2

    (tmp_path / "none").mkdir()
    assert _call(*asked, none)[0] == 0
    code, text = _call(*asked, none, "--require=mine/net")
    assert code == 4
    assert "mine/net: robust not measured, but required\n" in text
    assert _call(*asked, none, "--require=net", "--format=junit")[1].count("<failure") == 3
    assert _call(*asked, none, "--require=net", "--format=github")[1].count("::error") == 3
    code, text = _call(*asked, none, "--require=other")
    assert (code, "no published or accepted number about other" in text) == (2, True)
    assert _call("check", none, f"--accepted={tmp_path}")[0] == 2


def test_what_is_not_complete_or_not_in_order_is_not_accepted(tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    results, kept = f"--results-dir={store.root}", f"--accepted={tmp_path / 'kept'}"
    begun = make_manifest("digits-linf", "begun", 360)
    folder = store.folder(begun)
    with folder.locked():
        folder.begin(begun)
    code, text = _call("accept", "digits-linf/begun", kept, results)
    assert (code, "is not finished" in text) == (2, True)
    _save(store.root, 350, 190, overrides={"eps": 0.1})
    code, text = _call("accept", "digits-linf/net", kept, results)
    assert (code, "as it is defined" in text, "got another eps" in text) == (2, True, True)
    assert not (tmp_path / "kept").exists()


def test_an_express_evaluation_is_compared_with_an_accepted_one(tmp_path: Path) -> None:
    store = Store(tmp_path)
    run = _save(tmp_path, 350, 190, kind="express", protocol="express", engine="express")
    records = records_of(store, [run], lambda _: {})
    assert not records.results
    _save(tmp_path, 350, 100)
    found = check(store, "digits-linf", "net", accepted=records)
    assert [(each.quantity, each.verdict.outcome) for each in found] == [
        ("clean", "reproduced"),
        ("express", "reproduced"),
    ]
    update_records(tmp_path / "kept", records)
    assert load_records(tmp_path / "kept") == records
