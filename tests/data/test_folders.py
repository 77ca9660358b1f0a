"""Class folders: their order, what the data lack, and what else lies there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bench import data
from bench.data.class_names import folder_order, outputs_of
from bench.data.folders import list_classes
from bench.errors import InputError
from bench.suites import DataSource


def _write(folder: Path, *places: str, mode: str = "RGB") -> Path:
    for number, place in enumerate(places):
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        Image.new(mode, (3, 3), 40 * number + 15 if mode == "L" else (40 * number + 15, 0, 0)).save(
            folder / place, "PNG"
        )
    return folder


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=30, unique=True), st.integers(0, 8))
def test_whole_numbers_go_by_their_value(numbers: list[int], zeros: int) -> None:
    names = [f"{number:0{zeros}d}" for number in numbers]
    ordered, notices = folder_order(names, "it")
    assert [int(name) for name in ordered] == sorted(numbers)
    differs = list(ordered) != sorted(names)
    assert any("sorts them as text" in notice for notice in notices) == differs
    assert any("not from 0 on" in notice for notice in notices) == (
        sorted(numbers) != list(range(len(numbers)))
    )


@given(st.lists(st.text("aB1-0"), min_size=1, max_size=12, unique=True))
def test_other_names_go_as_text_and_doubt_is_said(names: list[str]) -> None:
    if all(name.isdigit() for name in names):
        return
    ordered, _ = folder_order(names, "it")
    assert list(ordered) == sorted(names)


def test_the_two_orders_are_shown_where_they_differ() -> None:
    names = [f"class{number}" for number in range(12)]
    (notice,) = folder_order(names, "it")[1]
    assert "as text: ... class1, class10, class11, ..." in notice
    assert "by their numbers it would be ... class1, class2, class3, ..." in notice
    assert "`class_order`" in notice
    assert folder_order(["cat", "dog"], "it") == (("cat", "dog"), ())
    with pytest.raises(InputError, match="got 01 and 1, the same number"):
        folder_order(["0", "1", "01"], "it")


def test_names_are_looked_up_by_text_and_by_value() -> None:
    assert outputs_of(["002", "10"], [str(number) for number in range(11)], "it") == [2, 10]
    assert outputs_of(["b"], ["a", "b"], "it") == [1]
    with pytest.raises(InputError, match="one name for each class, got 1 and 01"):
        outputs_of(["1", "01"], ["0", "1"], "it")


def test_class_order_and_classes_decide_the_labels(tmp_path: Path) -> None:
    folder = _write(tmp_path / "own", "a/0.png", "b/0.png", "b/1.png", "c/0.png")

    def load(**fields: object) -> data.Dataset:
        return data.load_source(DataSource(folder=folder, **fields))  # type: ignore[arg-type]

    assert load().labels.tolist() == [0, 1, 1, 2]
    ordered = load(class_order=["c", "a", "b"])
    assert ordered.classes == ("c", "a", "b")
    assert ordered.labels.tolist() == [0, 1, 2, 2]
    assert ordered.images[0, 0, 0, 0].item() == pytest.approx(135 / 255)  # the image of c
    assert ordered.sha256() != load().sha256()
    subset = load(classes=["x", "b", "y", "c", "a"])
    assert subset.labels.tolist() == [1, 1, 3, 4]
    assert len(subset.classes) == 5
    with pytest.raises(InputError, match=r"expected classes among a, b.*got c"):
        load(classes=["a", "b"])
    with pytest.raises(InputError, match=r"none for d; where the data lack classes.*`classes`"):
        load(class_order=["a", "b", "c", "d"])


def test_what_is_no_image_is_left_out_and_said(tmp_path: Path) -> None:
    folder = _write(tmp_path / "own", "1/b.PNG", "1/deep/er/c.png", "0/a.png", "loose.png")
    for litter in ("0/Thumbs.db", "0/.DS_Store", "0/._a.png", ".git/x.png", "__MACOSX/0/a.png"):
        (folder / litter).parent.mkdir(parents=True, exist_ok=True)
        (folder / litter).write_bytes(b"")
    (folder / "1" / "d.gif").write_bytes(b"")
    found = list_classes(folder)
    assert [path.name for path in found.files] == ["a.png", "b.PNG", "c.png"]
    assert found.labels == (0, 1, 1)
    assert found.notices == (
        "own: left out files without the ending of an image: .gif (1)",
        "own: left out 1 images that are in no class folder",
    )


def test_links_to_folders_that_are_there_already_are_left_out(tmp_path: Path) -> None:
    _write(tmp_path, "cat/1.png", "cat/more/2.png", "dog/3.png")
    (tmp_path / "cat/own").symlink_to(".")
    (tmp_path / "cat/more/all").symlink_to(tmp_path)
    (tmp_path / "dog/others").symlink_to(tmp_path / "dog/elsewhere")
    _write(tmp_path / "dog", "elsewhere/4.png")
    found = list_classes(tmp_path)
    assert [path.name for path in found.files] == ["1.png", "2.png", "3.png", "4.png"]
    assert any("left out folders that are links to others: 3" in each for each in found.notices)


def test_other_layouts_are_refused(tmp_path: Path) -> None:
    def refuse(folder: Path, expected: str) -> None:
        with pytest.raises(InputError, match=expected):
            data.load_source(DataSource(folder=folder))

    refuse(
        tmp_path / "none", "expected a folder with one subfolder of images for each class; No such"
    )
    refuse(_write(tmp_path / "flat", "a.png", "b.png"), "got no subfolder and 2 images")
    parts = _write(tmp_path / "parts", "train/a/0.png", "test/a/0.png")
    refuse(parts, "got the parts of a data set: test, train; name one")
    empty = _write(tmp_path / "empty", "a/0.png")
    (empty / "b").mkdir()
    refuse(empty, r"empty/b: expected at least one image")
    assert len(data.load_source(DataSource(folder=empty, classes=("a", "b")))) == 1


def test_folders_of_grey_images(tmp_path: Path) -> None:
    folder = _write(tmp_path / "own", "a/0.png", "b/0.png", mode="L")
    grey = data.load_source(DataSource(folder=folder, channels=1))
    colour = data.load_source(DataSource(folder=folder))
    assert grey.images.shape == (2, 1, 3, 3)
    assert np.array_equal(grey.images.expand(-1, 3, -1, -1), colour.images)
    assert grey.notices == ()
