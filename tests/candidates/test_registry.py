"""From names to candidates: shipped, folders, third parties, the zoo; what is refused and how."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch
from torch import nn

from bench import data
from bench.candidates import registry
from bench.candidates.registry import find_candidates, shipped_submissions
from bench.candidates.submission_weights import package_file
from bench.errors import InputError
from bench.suites import load_suite
from tests.conftest import LINEAR_CODE

DIGITS = load_suite("digits-linf")


def third_party_network() -> nn.Module:
    """What a third party's entry point names."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


def test_every_shipped_submission_loads_and_is_small() -> None:
    for name, folder in shipped_submissions().items():
        suites = [load_suite(each) for each in ("digits-linf", "cifar10-linf", "cifar100-linf")]
        (suite,) = [each for each in suites if read_dataset(folder) == each.data.label]
        (reference,) = find_candidates([name], suite)
        candidate = reference.load()
        assert not candidate.module.training
        assert all(path.stat().st_size <= 6e6 for path in folder.iterdir())


def read_dataset(folder: Path) -> str:
    """The data set that a submission names."""
    from bench.candidates.submission import read_submission

    return read_submission(folder).dataset


def test_shipped_digits_are_as_good_as_they_say() -> None:
    test = data.load("digits")
    for reference in find_candidates(DIGITS.candidates, DIGITS):
        with torch.no_grad():
            predictions = reference.load().module(test.images).argmax(dim=1)
        assert float((predictions == test.labels).float().mean()) > 0.97


def test_a_candidate_for_another_data_set_is_answered_with_its_suites(
    write_submission: Callable[..., Path],
) -> None:
    with pytest.raises(InputError) as shipped:
        find_candidates(["cifar10-robust"], DIGITS)
    assert str(shipped.value) == (
        "candidate cifar10-robust is for cifar10, suite digits-linf has digits; use cifar10-linf "
        "or cifar10-l2"
    )
    folder = write_submission(dataset="signs")
    with pytest.raises(InputError) as own:
        find_candidates([str(folder)], DIGITS)
    assert str(own.value) == (
        f"candidate linear is for signs (field dataset of {folder}/submission.yaml), suite "
        "digits-linf has digits; no suite that comes with bench has signs, they have cifar10, "
        "cifar100, digits, imagenet"
    )


def test_patterns_take_what_fits_and_names_must_fit() -> None:
    found = [reference.name for reference in find_candidates(["*-standard"], DIGITS)]
    assert found == ["digits-standard"]
    with pytest.raises(InputError, match="pyautoattack-example is for cifar10, suite digits-linf"):
        find_candidates(["pyautoattack-example"], DIGITS)
    with pytest.raises(InputError, match="RobustBench's zoo has no models for suite digits-linf"):
        find_candidates(["robustbench:*"], DIGITS)
    zoo = find_candidates(["robustbench:Bai2023*"], load_suite("cifar100-linf"))
    assert [each.name for each in zoo] == [
        "robustbench:Bai2023Improving_edm",
        "robustbench:Bai2023Improving_trades",
    ]
    with pytest.raises(InputError, match="did you mean robustbench:Bai2023Improving_edm"):
        find_candidates(["robustbench:Bai2023Improving_emd"], load_suite("cifar100-linf"))


def test_two_candidates_of_one_name_are_refused(write_submission: Callable[..., Path]) -> None:
    one = write_submission("one")
    other = shutil.copytree(one, one.with_name("other"))
    with pytest.raises(InputError, match=r"got 'one' for .*/one and .*/other; change field name"):
        find_candidates([str(one), str(other)], DIGITS)
    assert len(find_candidates([str(one), f"{one}/../one"], DIGITS)) == 1


def test_own_code_runs_only_when_the_user_says_so(
    write_submission: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_submission()
    monkeypatch.setattr(registry, "shipped_submissions", lambda: {"linear": folder})
    (by_name,) = find_candidates(["linear"], DIGITS)
    with pytest.raises(InputError, match="name the folder by its path or pass --trust-code"):
        by_name.load()
    for names, trust in ((["linear"], True), ([str(folder)], False)):
        (reference,) = find_candidates(names, DIGITS, trust_code=trust)
        assert reference.load().module(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


def test_weights_without_a_file_are_known_by_what_the_code_made(
    write_submission: Callable[..., Path],
) -> None:
    folder = write_submission(weights=None, sha256=None)
    (reference,) = find_candidates([str(folder)], DIGITS)
    one, other = reference.load(), reference.load()
    assert list(one.weights_sha256) == ["weights"]
    assert one.weights_sha256 != other.weights_sha256


def test_a_submission_may_have_several_files_of_its_own(
    write_submission: Callable[..., Path],
) -> None:
    folders = [write_submission("one"), write_submission("two")]
    for place, folder in enumerate(folders):
        (folder / "model.py").write_text("from .parts.layers import linear\n")
        (folder / "parts").mkdir()
        code = LINEAR_CODE.replace("scale=1.0", "scale=SCALE")
        (folder / "parts" / "layers.py").write_text(f"from ..numbers import SCALE\n{code}")
        (folder / "numbers.py").write_text(f"SCALE = {place}\n")
    modules = [find_candidates([str(folder)], DIGITS)[0].load().module for folder in folders]
    assert [module[1].scale for module in modules] == [0, 1]  # type: ignore[index]
    (folders[0] / "model.py").write_text("from parts.layers import linear\n")
    with pytest.raises(
        InputError, match=r"relative imports: expected `from \.parts import \.\.\.`"
    ):
        find_candidates([str(folders[0])], DIGITS)[0].load()


def test_third_parties_come_by_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    location = f"{third_party_network.__module__}:third_party_network"
    entry = EntryPoint("theirs", location, registry.ENTRY_POINT_GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda group: [entry])
    (reference,) = find_candidates(["theirs"], DIGITS)
    candidate = reference.load()
    assert candidate.name == "theirs"
    assert list(candidate.weights_sha256) == ["weights"]


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("package:///w.pt", "expected package://<package>/<file>, such as"),
        ("package://.relative/w.pt", "expected package://<package>/<file>, such as"),
        ("package://json", "expected package://<package>/<file>, such as"),
        ("package://nothing_here/w.pt", "no file 'w.pt' in installed package 'nothing_here'"),
        ("package://nothing_here.inner/w.pt", "no file 'w.pt' in installed package"),
    ],
)
def test_what_names_no_file_of_a_package_is_refused(reference: str, expected: str) -> None:
    with pytest.raises(InputError, match=re.escape(expected)):
        package_file(reference, Path("submission.yaml"))
