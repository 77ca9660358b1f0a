"""ImageNet's validation folder in other layouts than one folder a WordNet id."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import data
from bench.errors import InputError
from bench.suites import DataSource


@pytest.mark.parametrize(
    ("places", "came"),
    [
        (["ILSVRC2012_val_00000001.JPEG", "ILSVRC2012_val_00000002.JPEG"], "2 files and no folder"),
        (["000/a.JPEG", "999/b.JPEG"], r"2 folders with other names \(000 to 999\)"),
        (["n01440764/a.JPEG"], r"1 of the 1,000 \(n01443537 and others are missing\)"),
        ([], "0 files and no folders"),
    ],
)
def test_other_layouts_are_refused_with_the_right_one(
    tmp_path: Path, places: list[str], came: str
) -> None:
    (tmp_path / "val").mkdir()
    for place in places:
        (tmp_path / "val" / place).parent.mkdir(exist_ok=True)
        (tmp_path / "val" / place).touch()
    with pytest.raises(InputError, match=rf"val: expected .*val/n01440764/.*; got {came}"):
        data.load_source(DataSource(name="imagenet"), tmp_path, 4)
