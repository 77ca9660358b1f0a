"""Convert the pixels of one image from any mode of its file to floats in [0, 1].

Sources: the modes of Pillow (its documentation, "Concepts", "Modes"), and the specifications of
    TIFF, PNG and PNM.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.float32]

GREY_16_BIT = ("I;16", "I;16L", "I;16B", "I;16N")
ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")
GREY = ("1", "L", "LA", "La", *GREY_16_BIT, "I", "F")
CONVERTIBLE = ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "HSV", *ALPHA)
LUMINANCE = np.array([299, 587, 114], np.float32) / np.float32(1000)
"""Weights of red, green and blue in grey: ITU-R BT.601, as Pillow has them."""
ON_BLACK = "transparent pixels are composited on black"
FIRST_FRAME = "only the first of several frames or pages is read"
NOT_TURNED = "turned by an EXIF tag, which is ignored as in torchvision's ImageFolder"
TO_GREY = "colours are converted to grey"

_ORIENTATION = 0x0112
_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0


class Unreadable(ValueError):
    """An image whose values are ambiguous; the message says which image can be read."""


def pixels_of(image: Any, channels: int | None = None) -> tuple[Pixels, tuple[str, ...]]:
    """Return an image's values, as they are stored, and remarks on conversions.

    Transparent images are composed on black. Colour profiles and EXIF orientation are ignored.

    Args:
        image: a PIL image, in memory or from a file whose pixels are not loaded yet.
        channels: 1 for grey, 3 for RGB, None for the channels of the image.

    Returns:
        float32 (C, H, W) in [0, 1], and remarks.

    Raises:
        Unreadable: the mode has no standard range, or Pillow would lose bits.
    """
    tiles = _tiles(image)  # how the file packs its pixels, which Pillow drops when it loads them
    values, remarks = _natural(image, tiles)
    remarks += _remarks(image)
    if channels == 1 and values.shape[2] == 3:
        has_colour = bool((values != values[..., :1]).any())
        values = _to_grey(values) if has_colour else values[..., :1]
        remarks += (TO_GREY,) if has_colour else ()
    if channels == 3 and values.shape[2] == 1:
        values = values.repeat(3, axis=2)
    return np.ascontiguousarray(values.transpose(2, 0, 1)), remarks


def _natural(image: Any, tiles: str) -> tuple[Pixels, tuple[str, ...]]:
    """Return (H, W, C) with one channel or three, as in the image."""
    if image.mode in GREY_16_BIT:
        return _grey_16_bit(image, tiles), ()
    if image.mode == "I":
        return _integers(image), ()
    if image.mode == "F":
        return _floats(image), ()
    if _loses_bits(image, tiles):
        values = _colour_16_bit(image)
    elif image.mode not in CONVERTIBLE:
        raise Unreadable(f"mode {image.mode} cannot be read as RGB; save it as an 8-bit PNG")
    elif image.mode in ALPHA or "transparency" in image.info:
        values = _eight_bit((image.convert("LA") if image.mode == "La" else image).convert("RGBA"))
    else:
        return _eight_bit(image.convert("L" if image.mode in GREY else "RGB")), ()
    if values.shape[2] == 3:
        return values, ()
    alpha = values[..., -1:]
    colours = values[..., : 1 if image.mode in GREY else -1]
    return colours * alpha, () if (alpha == 1).all() else (ON_BLACK,)


def _tiles(image: Any) -> str:
    return " ".join(str(tile) for tile in getattr(image, "tile", ()))


def _remarks(image: Any) -> tuple[str, ...]:
    remarks = []
    # The second picture of an MPO photograph is a preview or the other half of a stereo pair.
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
        remarks.append(FIRST_FRAME)
    if image.getexif().get(_ORIENTATION, 1) != 1:
        remarks.append(NOT_TURNED)
    return tuple(remarks)


def _loses_bits(image: Any, tiles: str) -> bool:
    """Return whether Pillow reads a file of more than 8 bits a channel as one of 8."""
    if image.format == "PPM":
        arguments = image.tile[0][3] if image.tile else ()
        limits = arguments if isinstance(arguments, tuple) else ()
        return any(isinstance(value, int) and value > 255 for value in limits)
    return ";16" in tiles or ";12" in tiles


def _eight_bit(image: Any) -> Pixels:
    values = np.asarray(image)
    values = values[..., None] if values.ndim == 2 else values
    return values.astype(np.float32) / np.float32(255)


def _grey_16_bit(image: Any, tiles: str) -> Pixels:
    if image.format not in (None, "PNG", "TIFF", "PPM"):
        raise Unreadable(f"expected 16-bit grey in a PNG, TIFF or PGM, got {image.format}")
    if image.format == "TIFF" and image.tag_v2.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        raise Unreadable("16-bit grey whose 0 is white cannot be read; save it as a PNG")
    key = image.info.get("transparency")
    levels = np.asarray(image)[..., None]
    values = levels.astype(np.float32) / np.float32(4095 if "I;12" in tiles else 65535)
    if isinstance(key, int):
        values[levels == key] = 0
    return values


def _integers(image: Any) -> Pixels:
    # Pillow scales greys of a PGM to 16 bits; up to version 10 it reads 16-bit PNGs in this mode.
    if image.format not in ("PNG", "PPM"):
        raise Unreadable("32-bit or signed integers have no agreed range; save it as a 16-bit PNG")
    return np.asarray(image)[..., None].astype(np.float32) / np.float32(65535)


def _floats(image: Any) -> Pixels:
    values = np.asarray(image)[..., None]
    if not ((values >= 0) & (values <= 1)).all():
        raise Unreadable(
            f"expected floats in [0, 1], got values in [{values.min():g}, {values.max():g}]"
        )
    result: Pixels = values.astype(np.float32)
    return result


def _colour_16_bit(image: Any) -> Pixels:
    """Return (H, W, C) of a PNG of 16 bits a channel, with alpha where it has one."""
    if image.format != "PNG" or "transparency" in image.info:
        raise Unreadable(
            f"{image.format} of 16 bits a channel would lose half of them; save it as a 16-bit PNG "
            "without a transparent colour, or with 8 bits a channel"
        )
    image.fp.seek(0)
    levels = _decode(image.fp.read())
    image.fp.seek(0)
    if levels is None:
        raise Unreadable(
            "PNGs of 16 bits a channel need another decoder than this torchvision's; run `pip "
            "install imagecodecs`, or save it with 8 bits a channel"
        )
    result: Pixels = levels.astype(np.float32) / np.float32(65535)
    return result


def _decode(png: bytes) -> Any:
    """Return levels (H, W, C) uint16 of a PNG; None where no decoder is installed.

    torchvision's decoder comes with the package's dependencies, but is deprecated since torchvision
    0.29. Where it is gone, imagecodecs decodes if it is installed.
    """
    levels = _by_torchvision(png)
    if levels is None:
        try:
            import imagecodecs
        except ImportError:
            return None
        levels = imagecodecs.png_decode(png)
    return levels if levels.dtype == np.uint16 else None


def _by_torchvision(png: bytes) -> Any:
    import torch

    try:
        from torchvision.io import ImageReadMode, decode_png
    except ImportError:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        encoded = torch.frombuffer(bytearray(png), dtype=torch.uint8)
        return decode_png(encoded, mode=ImageReadMode.UNCHANGED).numpy().transpose(1, 2, 0)


def _to_grey(values: Pixels) -> Pixels:
    """Turn (H, W, 3) into grey (H, W, 1); 8-bit colours are rounded as Pillow rounds them."""
    levels = values * np.float32(255)
    if np.abs(levels - np.rint(levels)).max() > 1e-3:
        return (values @ LUMINANCE)[..., None]
    red, green, blue = np.moveaxis(np.rint(levels).astype(np.int64), 2, 0)
    grey: Pixels = ((19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16).astype(np.float32)
    return grey[..., None] / np.float32(255)


def as_pillow(pixels: Pixels) -> Any:
    """Return pixels (3, H, W) in [0, 1] as an 8-bit PIL image, for a candidate's preprocessing."""
    from PIL import Image

    levels = np.rint(pixels.transpose(1, 2, 0) * 255).astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(levels))
