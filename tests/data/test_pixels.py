"""Every mode of an image file is read as it is stored, or refused."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.data.image_files import read_images
from bench.data.pixels import FIRST_FRAME, NOT_TURNED, ON_BLACK, TO_GREY, Unreadable, pixels_of
from bench.errors import InputError
from tests.data.files import write_16_bit_png

RANDOM = np.random.default_rng(0)
GREYS = RANDOM.integers(0, 256, (4, 5), dtype=np.uint8)
COLOURS = RANDOM.integers(0, 256, (4, 5, 3), dtype=np.uint8)
ALPHAS = RANDOM.integers(0, 256, (4, 5), dtype=np.uint8)


def _read(path: Path, channels: int | None = 3) -> np.ndarray:
    with Image.open(path) as image:
        return pixels_of(image, channels)[0].transpose(1, 2, 0)


@pytest.mark.parametrize("name", ["grey.png", "grey.bmp", "grey.pgm", "grey.tif"])
def test_grey(tmp_path: Path, name: str) -> None:
    Image.fromarray(GREYS).save(tmp_path / name)
    expected = GREYS[..., None] / np.float32(255)
    assert np.array_equal(_read(tmp_path / name, None), expected)
    assert np.array_equal(_read(tmp_path / name, 1), expected)
    assert np.array_equal(_read(tmp_path / name), expected.repeat(3, axis=2))


def test_colours_and_the_grey_that_pillow_makes_of_them(tmp_path: Path) -> None:
    image = Image.fromarray(COLOURS)
    image.save(tmp_path / "it.png")
    assert np.array_equal(_read(tmp_path / "it.png"), COLOURS / np.float32(255))
    grey = np.asarray(image.convert("L"))[..., None] / np.float32(255)
    assert np.array_equal(_read(tmp_path / "it.png", 1), grey)
    assert pixels_of(image, 1)[1] == (TO_GREY,)
    same = Image.fromarray(np.stack([GREYS] * 3, axis=2))
    assert np.array_equal(pixels_of(same, 1)[0][0], GREYS / np.float32(255))
    assert pixels_of(same, 1)[1] == ()


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_16_bit_pngs_keep_all_bits(tmp_path: Path, channels: int) -> None:
    levels = RANDOM.integers(0, 65536, (4, 5, channels)).astype(np.uint16)
    write_16_bit_png(tmp_path / "it.png", levels)
    values = levels / np.float32(65535)
    expected = values[..., :-1] * values[..., -1:] if channels in (2, 4) else values
    with Image.open(tmp_path / "it.png") as image:
        pixels, remarks = pixels_of(image)
    assert np.allclose(pixels.transpose(1, 2, 0), expected, rtol=0, atol=1e-7)
    assert (ON_BLACK in remarks) == (channels in (2, 4))


def test_16_bit_colours_without_torchvisions_decoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    levels = RANDOM.integers(0, 65536, (4, 5, 3)).astype(np.uint16)
    write_16_bit_png(tmp_path / "it.png", levels)
    monkeypatch.setitem(sys.modules, "torchvision.io", None)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "imagecodecs", None)
        with (
            Image.open(tmp_path / "it.png") as image,
            pytest.raises(Unreadable, match="imagecodecs"),
        ):
            pixels_of(image)
    pytest.importorskip("imagecodecs")
    assert np.array_equal(_read(tmp_path / "it.png"), levels / np.float32(65535))


@pytest.mark.parametrize("name", ["it.tif", "it.pgm"])
def test_other_16_bit_greys(tmp_path: Path, name: str) -> None:
    levels = RANDOM.integers(0, 65536, (4, 5)).astype(np.uint16)
    Image.fromarray(levels).save(tmp_path / name)
    assert np.array_equal(_read(tmp_path / name, 1)[..., 0], levels / np.float32(65535))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "palette", "colour key", "grey key"])
def test_transparent_images_are_composed_on_black(tmp_path: Path, mode: str) -> None:
    rgba = np.concatenate([COLOURS, ALPHAS[..., None]], axis=2)
    options = {}
    if mode == "RGBA":
        image = Image.fromarray(rgba)
    elif mode == "LA":
        image = Image.merge("LA", [Image.fromarray(GREYS), Image.fromarray(ALPHAS)])
    elif mode == "PA":
        image = Image.fromarray(rgba).convert("PA")
    elif mode == "palette":
        image = Image.fromarray(COLOURS).quantize(4)
        options["transparency"] = 2
    elif mode == "colour key":
        image, options["transparency"] = Image.fromarray(COLOURS), tuple(COLOURS[1, 1].tolist())
    else:
        image, options["transparency"] = Image.fromarray(GREYS), int(GREYS[1, 1])
    if mode == "PA":  # of no file format
        came, remarks = pixels_of(image)
    else:
        image.save(tmp_path / "it.png", **options)
        with Image.open(tmp_path / "it.png") as opened:
            came, remarks = pixels_of(opened, 3)
            image = opened.convert("RGBA")
    stored = np.asarray(image.convert("RGBA")).astype(np.float64) / 255
    expected = stored[..., :3] * stored[..., 3:]
    assert np.allclose(came.transpose(1, 2, 0), expected, atol=1e-6)
    assert remarks == (ON_BLACK,)
    assert (expected == 0).any(axis=2).sum() > 0 or mode in ("RGBA", "LA", "PA")


def test_an_alpha_channel_that_hides_nothing_is_no_remark() -> None:
    image = Image.fromarray(COLOURS)
    image.putalpha(255)
    pixels, remarks = pixels_of(image)
    assert remarks == ()
    assert np.array_equal(pixels.transpose(1, 2, 0), COLOURS / np.float32(255))


@pytest.mark.parametrize("mode", ["1", "P", "CMYK", "YCbCr", "HSV", "RGBX"])
def test_other_modes_are_what_pillow_converts_them_to(mode: str) -> None:
    image = Image.fromarray(COLOURS).convert(mode)
    expected = np.asarray(image.convert("RGB")) / np.float32(255)
    assert np.array_equal(pixels_of(image, 3)[0].transpose(1, 2, 0), expected)


def test_floats_in_0_1_are_taken_and_others_refused(tmp_path: Path) -> None:
    floats = RANDOM.random((4, 5)).astype(np.float32)
    Image.fromarray(floats).save(tmp_path / "it.tif")
    assert np.array_equal(_read(tmp_path / "it.tif", 1)[..., 0], floats)
    for wrong in (floats * 255, floats - 0.5, np.full_like(floats, np.nan)):
        Image.fromarray(wrong).save(tmp_path / "it.tif")
        with pytest.raises(Unreadable, match=r"expected floats in \[0, 1\]"):
            _read(tmp_path / "it.tif")


def test_what_has_no_agreed_range_is_refused(tmp_path: Path) -> None:
    Image.fromarray(GREYS.astype(np.int32)).save(tmp_path / "it.tif")
    with pytest.raises(Unreadable, match="no agreed range"):
        _read(tmp_path / "it.tif")
    with pytest.raises(Unreadable, match="mode LAB"):
        pixels_of(Image.new("LAB", (3, 3)))
    (tmp_path / "deep.ppm").write_bytes(b"P6 2 1 65535\n" + bytes(range(12)))
    with pytest.raises(Unreadable, match="PPM of 16 bits a channel"):
        _read(tmp_path / "deep.ppm")


def test_frames_and_orientation_are_remarked_on(tmp_path: Path) -> None:
    first, second = Image.fromarray(GREYS), Image.fromarray(255 - GREYS)
    first.save(tmp_path / "it.png", save_all=True, append_images=[second])
    with Image.open(tmp_path / "it.png") as image:
        pixels, remarks = pixels_of(image)
    assert remarks == (FIRST_FRAME,)
    assert np.array_equal(pixels[0], GREYS / np.float32(255))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(COLOURS).save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as image:
        pixels, remarks = pixels_of(image)
    assert remarks == (NOT_TURNED,)
    assert np.array_equal(pixels.transpose(1, 2, 0), COLOURS / np.float32(255))


def test_a_wrong_file_is_named_and_remarks_are_counted(tmp_path: Path) -> None:
    paths = [tmp_path / f"{place}.png" for place in range(3)]
    for path in paths:
        Image.fromarray(np.concatenate([COLOURS, ALPHAS[..., None]], axis=2)).save(path)
    assert read_images(paths, "it")[1] == (f"it: 3 of 3 images: {ON_BLACK}; the first is 0.png",)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for damaged in (paths[1].read_bytes()[:60], b"", b"GIF89a"):
            paths[1].write_bytes(damaged)
            with pytest.raises(InputError, match=r"1\.png: expected an image of it; "):
                read_images(paths, "it")
    Image.fromarray(COLOURS[:2]).save(paths[1])
    with pytest.raises(InputError, match=r"1\.png: expected an image of shape \(3, 4, 5\)"):
        read_images(paths, "it")
