"""Images in [0, 1] as pictures of 8 bits a channel."""

from __future__ import annotations

import base64
import io

import numpy as np
import numpy.typing as npt
from PIL import Image

from bench.store.records import ImageArray

Pixels = npt.NDArray[np.uint8]


def levels(image: ImageArray) -> Pixels:
    """Return an image (C, H, W) in [0, 1] as 8-bit levels (H, W, C)."""
    pixels: Pixels = np.rint(np.nan_to_num(image).clip(0, 1) * 255).astype(np.uint8)
    return pixels.transpose(1, 2, 0)


def magnified(change: ImageArray, scale: float) -> ImageArray:
    """Return a change (C, H, W) as an image: grey where it is 0, black or white at ±`scale`."""
    image: ImageArray = (0.5 + change / (2 * max(scale, 1e-12))).clip(0, 1).astype(np.float32)
    return image


def picture(pixels: Pixels) -> Image.Image:
    """Return 8-bit levels (H, W, C) as an image: RGB for three channels, else the first in grey."""
    return Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[..., 0])


def data_address(pixels: Pixels, lossless: bool = True) -> str:
    """Return the address that holds an image itself: as PNG, or as WebP with losses."""
    buffer = io.BytesIO()
    if lossless:
        picture(pixels).save(buffer, "PNG", optimize=True)
    else:
        picture(pixels).save(buffer, "WEBP", quality=82)
    kind = "png" if lossless else "webp"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
