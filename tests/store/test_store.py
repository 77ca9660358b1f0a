"""The store: whole blocks or none, exact witnesses, damage named and never overwritten."""

from __future__ import annotations

from pathlib import Path

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from bench import data
from bench.candidates import Candidate
from bench.errors import InputError
from bench.runs import environment
from bench.runs.session import RunResult, evaluate
from bench.runs.settings import Settings
from bench.store import RunFolder, Store, safe_name
from bench.store.packing import apply_difference, difference
from bench.store.records import AttackBlock, CleanResults
from bench.suites import load_suite
from tests.pages.runs import make_manifest, save_run
from tests.silent import SilentObserver

IMAGES = arrays.arrays(
    np.float32, (2, 1, 3, 3), elements=st.floats(0, 1, width=32, allow_subnormal=True)
)


@given(IMAGES, IMAGES)
def test_witnesses_are_kept_bit_for_bit(clean: np.ndarray, images: np.ndarray) -> None:
    restored = apply_difference(clean, difference(clean, images))
    assert restored.tobytes() == images.tobytes()


@given(st.text())
def test_safe_names_stay_in_their_folder(name: str) -> None:
    safe = safe_name(name)
    assert safe
    assert safe not in (".", "..")
    assert (Path("root") / safe).parent == Path("root")


def test_long_names_are_told_apart_and_fit_a_file_system(tmp_path: Path) -> None:
    one, other = (safe_name(300 * "x" + ending) for ending in "ab")
    assert one != other
    assert safe_name(one) == one
    (tmp_path / f"{one}.html").touch()


def test_the_newest_of_two_short_runs_is_told() -> None:
    assert environment.now() < environment.now()


def _evaluate(module: nn.Module, root: Path, **changes: object) -> tuple[RunResult, list[str]]:
    settings = Settings(
        load_suite("digits-linf"), engine="reference", batch_size=8, n_examples=12, eps=0.05
    )
    settings = Settings(**{**vars(settings), **changes})
    observer = SilentObserver()
    outcome = evaluate(
        Candidate("linear", module, {}, ""),
        data.load("digits").first(12),
        settings,
        Store(root),
        observer,
    )
    return outcome, observer.notices


def test_complete_runs_are_shown_and_damage_is_set_aside(
    linear_digits: nn.Module, tmp_path: Path
) -> None:
    first, _ = _evaluate(linear_digits, tmp_path)
    samples = first.folder.samples()
    assert samples["robust"].sum() == first.summary.robust_accuracy * 12
    again, notices = _evaluate(linear_digits, tmp_path)
    assert again.reused
    assert notices == []

    for name in ("run.json", "samples.parquet", "witnesses.npz"):
        path = first.folder.path / name
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 0xFF
        content[len(content) // 2 + 1] ^= 0xFF
        path.write_bytes(bytes(content[:-3]))
        mended, notices = _evaluate(linear_digits, tmp_path)
        assert not mended.reused
        assert notices[0].startswith("damaged")
        # The summary is made again from the tables, which keep the engine's record.
        again = ["summed up again from its tables"] * (name == "run.json")
        assert notices[1:] == again
        assert name != "run.json" or mended.summary.engine_record == first.summary.engine_record
        assert name in notices[0]
        assert mended.summary.robust_accuracy == first.summary.robust_accuracy
        assert mended.folder.samples().equals(samples)
        assert list(tmp_path.rglob(f"*damaged*{'' if name == 'run.json' else '/' + name}"))

    (first.folder.path / "witnesses.npz").unlink()
    mended, notices = _evaluate(linear_digits, tmp_path)
    assert not mended.reused
    assert "witnesses.npz" in notices[0]
    assert mended.folder.witness_bytes

    third, _ = _evaluate(linear_digits, tmp_path, again=True)
    assert not third.reused
    assert third.summary.run != first.summary.run
    newest, _ = _evaluate(linear_digits, tmp_path)
    assert newest.reused
    assert newest.summary.run == third.summary.run


def test_a_run_that_is_not_finished_is_not_shown_as_one_that_is_there(tmp_path: Path) -> None:
    store = Store(tmp_path)
    save_run(store, make_manifest("digits-linf", "whole", 10), 9, [8, 7, 7, 7])
    begun = make_manifest("digits-linf", "begun", 10)
    with store.folder(begun).locked():
        store.folder(begun).begin(begun)
    for reference in ("digits-linf/begun", f"digits-linf/begun@{begun.run[:6]}"):
        with pytest.raises(InputError, match="is not finished; the same command that began it"):
            store.summary(reference)
    with pytest.raises(InputError, match=r"expected SUITE/.*, one of digits-linf/whole$"):
        store.summary("digits-linf/other")


def test_damaged_block_is_set_aside_and_a_second_writer_refused(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "suite" / "candidate" / "run")
    numbers = np.arange(3)
    with folder.locked():
        folder.begin(make_manifest("digits-linf", "it", 3))
        for key in ("00-clean-00000", "00-clean-00001"):
            clean = CleanResults(numbers, numbers, numbers)
            folder.append(AttackBlock(key=key, seconds=1.0, clean=clean))
        path = folder.path / "parts" / "00-clean-00001.npz"
        path.write_bytes(path.read_bytes()[:-40])
        blocks, damaged = folder.blocks()
        assert list(blocks) == ["00-clean-00000"]
        assert [each.name.startswith("00-clean-00001.npz.damaged-") for each in damaged] == [True]
        with pytest.raises(InputError, match="another process"), RunFolder(folder.path).locked():
            pass


def test_other_schema_version_is_refused(linear_digits: nn.Module, tmp_path: Path) -> None:
    outcome, _ = _evaluate(linear_digits, tmp_path)
    path = outcome.folder.path / "run.json"
    path.write_text(path.read_text().replace('"schema_version": 2', '"schema_version": 99'))
    with pytest.raises(InputError, match="expected schema version 2, got 99"):
        Store(tmp_path).summaries()
