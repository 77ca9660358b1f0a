"""What a run says of the protocol that it followed."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn

from bench import data
from bench.candidates import Candidate
from bench.errors import InputError
from bench.runs.session import RunResult, evaluate
from bench.runs.settings import Settings
from bench.store import Store
from bench.store.summary import AttackedSummary
from bench.suites import load_suite
from bench.suites.suite import AttackChoice
from tests.pages.runs import save_unreadable
from tests.silent import SilentObserver

SHORT = (
    AttackChoice(name="apgd-ce", parameters={"steps": 1}),
    AttackChoice(name="apgd-t", parameters={"steps": 1, "targets": 1}),
    AttackChoice(name="fab-t", parameters={"steps": 1, "targets": 1}),
    AttackChoice(name="square", parameters={"queries": 1}),
)
ONLY_MIXES = (AttackChoice(name="apgd-mix-margin"),)


def run(
    module: nn.Module,
    root: Path,
    attacks: tuple[AttackChoice, ...] = SHORT,
    protocol: str = "standard",
    seed_witnesses: bool = False,
    observer: SilentObserver | None = None,
) -> RunResult:
    suite = load_suite("digits-linf")
    short = suite.protocol(protocol).model_copy(update={"attacks": attacks})
    suite = suite.model_copy(update={"protocols": {protocol: short}})
    settings = Settings(
        suite, protocol=protocol, n_examples=8, eps=0.08, seed_witnesses=seed_witnesses
    )
    candidate = Candidate("linear", module, {"weights": "1" * 64}, "2" * 64)
    watching = observer or SilentObserver()
    return evaluate(candidate, data.load("digits").first(8), settings, Store(root), watching)


def test_attacks_that_do_not_apply_are_no_evaluation(
    linear_digits: nn.Module, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="none of the attacks of standard applies to linear"):
        run(linear_digits, tmp_path, ONLY_MIXES)


def test_a_protocol_whose_special_attacks_all_fall_away_says_so(
    linear_digits: nn.Module, tmp_path: Path
) -> None:
    observer = SilentObserver()
    run(linear_digits, tmp_path, (*SHORT, *ONLY_MIXES), observer=observer)
    (notice,) = (each for each in observer.notices if "know a defence" in each)
    assert notice.endswith("What runs is apgd-ce, apgd-t, fab-t, square")


def test_autoattack_with_other_parameters_is_not_standard_autoattack(
    linear_digits: nn.Module, tmp_path: Path
) -> None:
    summary = run(linear_digits, tmp_path).summary
    assert isinstance(summary, AttackedSummary)
    assert [each.name for each in summary.attacks] == ["apgd-ce", "apgd-t", "fab-t", "square"]
    assert summary.autoattack_accuracy is None


def test_an_express_run_that_begins_with_known_images_is_another_run(
    linear_digits: nn.Module, tmp_path: Path
) -> None:
    alone = run(linear_digits, tmp_path, protocol="express")
    seeded = run(linear_digits, tmp_path, protocol="express", seed_witnesses=True)
    assert not seeded.reused
    assert seeded.summary.run != alone.summary.run


def test_known_images_are_tried_beside_a_run_that_cannot_be_read(
    linear_digits: nn.Module, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_unreadable(Store(tmp_path), "digits-linf")
    assert run(linear_digits, tmp_path, seed_witnesses=True).summary.n_examples == 8
    assert "old-candidate" in caplog.text
