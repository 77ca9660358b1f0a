"""Arrays of any type and layout are read right, or refused with the way out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench import data
from bench.data import Dataset
from bench.data.arrays import channels_first
from bench.data.labels import resolve
from bench.data.value_range import scale
from bench.errors import InputError
from bench.suites import DataSource

WHITE = {
    "uint8": 255,
    "int16": 255,
    "int32": 255,
    "int64": 255,
    "uint32": 255,
    "uint64": 255,
    "uint16": 65535,
    "float16": 1,
    "float32": 1,
    "float64": 1,
    "bool": 1,
}
"""The value of white by type."""


def _load(folder: Path, fields: dict[str, Any] | None = None, **arrays: Any) -> Dataset:
    np.savez(folder / "own.npz", **arrays)
    return data.load_source(DataSource(npz=folder / "own.npz", **(fields or {})))


@given(
    dtype=st.sampled_from(list(WHITE)),
    byte_order=st.sampled_from("<>"),
    channels=st.sampled_from([1, 3]),
    channels_last=st.booleans(),
    fortran=st.booleans(),
    labels_dtype=st.sampled_from(["u1", "<u8", ">i4", "f4", "one-hot", "column", "text", "bytes"]),
    named=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_types_layouts_and_orders(
    tmp_path: Path,
    dtype: str,
    byte_order: str,
    channels: int,
    channels_last: bool,
    fortran: bool,
    labels_dtype: str,
    named: bool,
    seed: int,
) -> None:
    """Whatever is saved of the same images and labels, the same comes back."""
    random = np.random.default_rng(seed)
    n, classes = 6, 4
    intended = random.random((n, channels, 5, 7))
    intended[0] = 1.0  # the range is used
    stored = intended * WHITE[dtype]
    stored = stored if dtype.startswith("float") else np.rint(stored)
    images = stored.astype(np.dtype(dtype).newbyteorder(byte_order))
    expected = images.astype(np.float64) / WHITE[dtype]
    images = images.transpose(0, 2, 3, 1) if channels_last else images
    images = np.asfortranarray(images) if fortran else images
    labels = random.permutation(np.r_[np.arange(classes), random.integers(0, classes, n - classes)])
    names = np.array(["d", "b", "a", "c"])
    saved: Any
    if labels_dtype == "one-hot":
        saved = np.eye(classes)[labels]
    elif labels_dtype == "column":
        saved = labels[:, None]
    elif labels_dtype == "text":
        saved, named = names[labels], True
    elif labels_dtype == "bytes":
        saved, named = np.char.encode(names[labels]), True
    else:
        saved = labels.astype(labels_dtype)
    more = {"classes": names} if named else {}
    dataset = _load(tmp_path, images=images, labels=saved, **more)
    assert dataset.images.dtype == torch.float32
    assert np.allclose(dataset.images.numpy(), expected, rtol=0, atol=1e-6)
    assert dataset.labels.dtype == torch.int64
    assert dataset.labels.tolist() == labels.tolist()
    assert dataset.classes == (tuple(names) if named else ("0", "1", "2", "3"))
    assert dataset.notices == ()


@given(
    outputs=st.lists(st.text("abc12", min_size=1), min_size=1, max_size=8, unique=True),
    seed=st.integers(0, 2**32 - 1),
)
@settings(deadline=None)
def test_named_classes_are_mapped_into_the_networks_outputs(outputs: list[str], seed: int) -> None:
    random = np.random.default_rng(seed)
    kept = [name for name in random.permutation(outputs) if random.random() < 0.7] or outputs[:1]
    numbers = {int(name) for name in outputs if name.isdigit()}
    if len(numbers) < sum(name.isdigit() for name in outputs):
        return  # "1" and "01" are the same number
    samples = random.integers(0, len(kept), 20)
    places, classes = resolve(samples, tuple(kept), tuple(outputs), "it")
    assert [classes[place] for place in places] == [kept[label] for label in samples]
    assert classes == tuple(outputs)


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (np.array([0, 1], np.uint8), r"uint8 images with values in \[0, 1\]; if 1 is white"),
        (np.array([0, 1], np.uint16), "range up to 65535, got uint16"),
        (np.array([0, 255], np.uint16), r"if 255 is white, save images\.astype\(np\.uint8\)"),
        (np.array([0, 256], np.int32), "expected integers up to 255, got int32"),
        (np.array([-128, 127], np.int8), "expected values >= 0"),
        (np.array([0, 255.0]), r"got values in \[0, 255\]; divide the images by 255"),
        (np.array([-2.1, 2.6]), "undo the normalization"),
        (np.array([0, 1.001]), r"got values in \[0, 1\.001\]"),
        (np.array([0, np.nan]), "NaN or infinity in 1 of 2 images; the first is image 1"),
        (np.array([np.inf, 0]), "the first is image 0"),
        (np.array([0j, 1]), "integers or floats, got complex128"),
        (np.array(["a", "b"]), "integers or floats, got <U1"),
    ],
)
def test_ranges_that_are_not_certain_are_refused(images: np.ndarray, expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        scale(images.reshape(2, 1, 1, 1), "own.npz")


def test_floats_may_miss_the_range_by_their_rounding() -> None:
    images = np.array([-1e-8, 1 + 1e-7])
    assert scale(images, "it").tolist() == [0, 1]


@pytest.mark.parametrize(
    "images", [np.full((2, 1, 4, 4), 16, np.uint8), np.full((2, 1, 4, 4), 0.003)]
)
def test_dark_images_are_noticed(tmp_path: Path, images: np.ndarray) -> None:
    dataset = _load(tmp_path, images=images, labels=[0, 1])
    assert len(dataset.notices) == 1
    assert "nearly black" in dataset.notices[0]


@pytest.mark.parametrize("shape", [(2, 3, 3, 3), (2, 1, 8, 1), (2, 5, 6, 7), (2, 4, 4, 4)])
def test_an_ambiguous_layout_is_refused_and_can_be_told(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    images, labels = np.random.default_rng(0).random(shape), [0, 1]
    with pytest.raises(InputError, match="layout: NCHW"):
        _load(tmp_path, images=images, labels=labels)
    first = _load(tmp_path, {"layout": "NCHW"}, images=images, labels=labels)
    last = _load(tmp_path, {"layout": "NHWC"}, images=images, labels=labels)
    assert first.images.shape == shape
    assert torch.equal(last.images, torch.from_numpy(images).float().permute(0, 3, 1, 2))


def test_other_numbers_of_channels_go_by_the_square() -> None:
    assert channels_first(np.zeros((2, 4, 8, 8)), None, "it").shape == (2, 4, 8, 8)
    assert channels_first(np.zeros((2, 16, 16, 13)), None, "it").shape == (2, 13, 16, 16)


IMAGES = np.full((3, 1, 4, 4), 255, np.uint8)


@pytest.mark.parametrize(
    ("labels", "classes", "expected"),
    [
        ([0, 1, -1], None, "integers >= 0, got -1 for image 2"),
        ([0, 1, 2.5], None, "integers >= 0, got 2.5 for image 2"),
        ([0, np.nan, 1], None, "integers >= 0, got nan for image 1"),
        ([[0.5, 0.5]] * 3, None, "rows are no single 1 among 0s"),
        ([1, 2, 3], ["a", "b", "c"], "below 3.*got 3; they begin with 1"),
        ([0, 1, 3], ["a", "b"], "labels below 2, the number of classes that are named, got 3"),
        (["a", "b", "c"], None, "labels are names; expected their classes"),
        (["a", "b", "x"], ["a", "b"], "expected classes among a, b.*got x"),
        ([0, 1, 1], ["a", "a"], "`classes`: expected each name once"),
        ([0, 1, 1], [[1.5]], "one text for each class"),
        (np.array([0, 1, "x"], object), None, r"`labels`.*Python objects.*np\.array\(labels"),
        ([0, 1, 1], np.array(["a", "b"], object), r"save np\.array\(classes, dtype=str\)"),
        ([0, 1], None, "one label for each image"),
        ([1j, 0, 0], None, "integers >= 0, got complex128"),
    ],
)
def test_labels_that_are_not_certain_are_refused(
    tmp_path: Path, labels: Any, classes: Any, expected: str
) -> None:
    more = {} if classes is None else {"classes": classes}
    with pytest.raises(InputError, match=rf"own\.npz: .*{expected}"):
        _load(tmp_path, images=IMAGES, labels=labels, **more)


def test_classes_of_the_suite_name_what_the_data_lack(tmp_path: Path) -> None:
    dataset = _load(tmp_path, {"classes": 10}, images=IMAGES, labels=[3, 1, 4])
    assert (dataset.labels.tolist(), len(dataset.classes)) == ([3, 1, 4], 10)
    named = {"classes": ["cat", "cow", "dog"]}
    dataset = _load(tmp_path, named, images=IMAGES, labels=[0, 1, 0], classes=["dog", "cat"])
    assert dataset.labels.tolist() == [2, 0, 2]
    with pytest.raises(InputError, match=r"expected classes among cat, cow, dog.*got eel"):
        _load(tmp_path, named, images=IMAGES, labels=[0, 1, 0], classes=["dog", "eel"])


def test_what_is_no_archive_of_images_is_named(tmp_path: Path) -> None:
    np.save(tmp_path / "own.npy", IMAGES)
    (tmp_path / "own.npy").rename(tmp_path / "own.npz")
    with pytest.raises(InputError, match=r"own\.npz: expected an \.npz.*got a single array"):
        data.load_source(DataSource(npz=tmp_path / "own.npz"))
    unused = np.array([{}, None], object)
    assert len(_load(tmp_path, images=IMAGES, labels=[0, 1, 1], notes=unused)) == 3
    ragged = np.empty(3, object)
    with pytest.raises(InputError, match=r"`images`.*save np\.stack\(images\)"):
        _load(tmp_path, images=ragged, labels=[0, 1, 1])
    content = bytearray((tmp_path / "own.npz").read_bytes())
    (tmp_path / "own.npz").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"damaged or not an \.npz file"):
        data.load_source(DataSource(npz=tmp_path / "own.npz"))
