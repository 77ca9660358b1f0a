"""Data of one's own, archives and folders of images, and what their pixels and labels mean."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from tests.fuzz.case import Draws, Outcome
from tests.fuzz.problem import Images, Labels

Bytes = npt.NDArray[np.uint8]
Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Source:
    """Data as they were written.

    Attributes:
        data: the suite's field.
        label: what submissions call it.
        outcome: of a suite on it.
        readings: images (N, C, H, W) in [0, 1] and labels (N,): each a right reading of the files.
        names: texts of which a refusal contains one.
        words: texts of which the output of an evaluation must contain one, unless empty.
    """

    data: dict[str, Any]
    label: str
    outcome: Outcome
    readings: tuple[tuple[Images, Labels], ...]
    names: tuple[str, ...]
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Archive:
    """A way to write an archive: from 8-bit pixels, labels and class count to arrays."""

    arrays: Callable[[Bytes, Labels, int], Arrays]
    outcome: Outcome = "accept"
    scale: float = 255.0
    words: tuple[str, ...] = ()
    damage: Callable[[bytes], bytes] = bytes


def _names(classes: int) -> npt.NDArray[np.str_]:
    return np.array([f"class {number}" for number in range(classes)])


def _plain(
    images: Callable[[Bytes], npt.NDArray[Any]] = lambda pixels: pixels,
    labels: Callable[[Labels], npt.NDArray[Any]] = lambda labels: labels,
    **more: Callable[[int], npt.NDArray[Any]],
) -> Callable[[Bytes, Labels, int], Arrays]:
    def arrays(pixels: Bytes, given: Labels, classes: int) -> Arrays:
        return {
            "images": images(pixels),
            "labels": labels(given),
            "classes": _names(classes),
            **{name: make(classes) for name, make in more.items()},
        }

    return arrays


def _unit(dtype: str) -> Callable[[Bytes], npt.NDArray[Any]]:
    return lambda pixels: (pixels / np.float32(255)).astype(dtype)


def _with(name: str, value: Any) -> Callable[[Bytes, Labels, int], Arrays]:
    return lambda pixels, labels, classes: {**_plain()(pixels, labels, classes), name: value}


def _without(name: str) -> Callable[[Bytes, Labels, int], Arrays]:
    def arrays(pixels: Bytes, labels: Labels, classes: int) -> Arrays:
        return {
            key: value for key, value in _plain()(pixels, labels, classes).items() if key != name
        }

    return arrays


def _poisoned(value: float) -> Callable[[Bytes], npt.NDArray[Any]]:
    def images(pixels: Bytes) -> npt.NDArray[Any]:
        made = pixels / np.float32(255)
        made[-1, 0, 0, 0] = value
        return made

    return images


def _relabelled(
    change: Callable[[Labels], npt.NDArray[Any]],
) -> Callable[[Bytes, Labels, int], Arrays]:
    return _plain(labels=change)


ARCHIVES: Mapping[str, _Archive] = MappingProxyType(
    {
        "uint8": _Archive(_plain()),
        "float32": _Archive(_plain(_unit("float32"))),
        "float64": _Archive(_plain(_unit("float64"))),
        "float16": _Archive(_plain(_unit("float16")), scale=-1),
        "big-endian float32": _Archive(_plain(_unit(">f4"))),
        "big-endian float64": _Archive(_plain(_unit(">f8"))),
        "long double": _Archive(_plain(_unit("longdouble")), "either"),
        "Fortran order": _Archive(_plain(lambda pixels: np.asfortranarray(pixels))),
        "channels last": _Archive(_plain(lambda pixels: pixels.transpose(0, 2, 3, 1))),
        "channels last, float": _Archive(
            _plain(lambda pixels: (pixels / np.float32(255)).transpose(0, 2, 3, 1))
        ),
        "without channels": _Archive(_plain(lambda pixels: pixels[:, 0]), "either"),
        "flat": _Archive(_plain(lambda pixels: pixels.reshape(len(pixels), -1)), "refuse"),
        "uint8 of 0 and 1": _Archive(
            _plain(lambda pixels: (pixels > 127).astype(np.uint8)),
            "either",
            scale=1,
            words=("0 and 1", "largest", "[0, 1]", "of 255"),
        ),
        "bool": _Archive(_plain(lambda pixels: pixels > 127), "either", scale=1),
        "int64 of 0 and 1": _Archive(
            _plain(lambda pixels: (pixels > 127).astype(np.int64)), "either", scale=1
        ),
        "int64 to 255": _Archive(_plain(lambda pixels: pixels.astype(np.int64)), "either"),
        "uint16": _Archive(
            _plain(lambda pixels: pixels.astype(np.uint16) * 257), "either", scale=65535
        ),
        "int16 to 255": _Archive(_plain(lambda pixels: pixels.astype(np.int16)), "either"),
        "int8": _Archive(
            _plain(lambda pixels: (pixels.astype(np.int16) - 128).astype(np.int8)), "refuse"
        ),
        "float to 255": _Archive(_plain(lambda pixels: pixels.astype(np.float32)), "refuse"),
        "float from -1": _Archive(_plain(lambda pixels: pixels / np.float32(127.5) - 1), "refuse"),
        "standardized": _Archive(
            _plain(lambda pixels: (pixels / np.float32(255) - 0.5) / 0.2), "refuse"
        ),
        "a little above 1": _Archive(
            _plain(lambda pixels: pixels / np.float32(255) * np.float32(1.01) + np.float32(0.01)),
            "refuse",
        ),
        "a pixel that is no number": _Archive(_plain(_poisoned(np.nan)), "refuse"),
        "an infinite pixel": _Archive(_plain(_poisoned(np.inf)), "refuse"),
        "a negative pixel": _Archive(_plain(_poisoned(-0.01)), "refuse"),
        "negative zero": _Archive(_plain(_poisoned(-0.0)), scale=-1),
        "complex": _Archive(_plain(_unit("complex64")), "refuse"),
        "text": _Archive(_plain(lambda pixels: pixels.astype(str)), "refuse"),
        "objects": _Archive(_plain(lambda pixels: pixels.astype(object)), "refuse"),
        "dates": _Archive(_plain(lambda pixels: pixels.astype("datetime64[s]")), "refuse"),
        "int32 labels": _Archive(_relabelled(lambda labels: labels.astype(np.int32))),
        "uint8 labels": _Archive(_relabelled(lambda labels: labels.astype(np.uint8))),
        "uint16 labels": _Archive(_relabelled(lambda labels: labels.astype(np.uint16))),
        "uint64 labels": _Archive(_relabelled(lambda labels: labels.astype(np.uint64))),
        "big-endian labels": _Archive(_relabelled(lambda labels: labels.astype(">i8"))),
        "float labels": _Archive(_relabelled(lambda labels: labels.astype(np.float32)), "either"),
        "half labels": _Archive(
            _relabelled(lambda labels: labels.astype(np.float32) + 0.5), "refuse"
        ),
        "column of labels": _Archive(_relabelled(lambda labels: labels[:, None]), "either"),
        "one-hot labels": _Archive(
            _relabelled(lambda labels: np.eye(labels.max() + 1, dtype=np.int64)[labels]), "either"
        ),
        "text labels": _Archive(_relabelled(lambda labels: labels.astype(str)), "refuse"),
        "labels from 1": _Archive(_relabelled(lambda labels: labels + 1), "refuse"),
        "negative labels": _Archive(_relabelled(lambda labels: labels - 1), "refuse"),
        "a label too few": _Archive(_relabelled(lambda labels: labels[:-1]), "refuse"),
        "huge labels": _Archive(_relabelled(lambda labels: labels + 2**40), "refuse"),
        "class names as bytes": _Archive(
            _plain(classes=lambda count: _names(count).astype("S")), "either"
        ),
        "class names as objects": _Archive(
            _plain(classes=lambda count: _names(count).astype(object)), "either"
        ),
        "class names as numbers": _Archive(_plain(classes=lambda count: np.arange(count))),
        "a class name too few": _Archive(
            _plain(classes=lambda count: _names(count)[:-1]), "refuse"
        ),
        "a class name too many": _Archive(
            _plain(classes=lambda count: _names(count + 1)), "refuse"
        ),
        "one class name": _Archive(_plain(classes=lambda count: np.array("all")), "refuse"),
        "class names twice": _Archive(
            _plain(classes=lambda count: np.array(["same"] * count)), "either"
        ),
        "no class names": _Archive(_without("classes")),
        "more arrays": _Archive(_with("mean", np.zeros(3))),
        "no labels": _Archive(_without("labels"), "refuse"),
        "no images": _Archive(_without("images"), "refuse"),
        "no samples": _Archive(
            lambda pixels, labels, classes: {"images": pixels[:0], "labels": labels[:0]}, "refuse"
        ),
        "nothing": _Archive(lambda pixels, labels, classes: {}, "refuse"),
        "truncated": _Archive(
            _plain(), "refuse", damage=lambda content: content[: len(content) // 2]
        ),
        "empty file": _Archive(_plain(), "refuse", damage=lambda content: b""),
        "text file": _Archive(_plain(), "refuse", damage=lambda content: b"images, labels\n"),
        "flipped bytes": _Archive(
            _plain(),
            "refuse",
            damage=lambda content: (
                content[:60] + bytes(255 - b for b in content[60:160]) + content[160:]
            ),
        ),
        "an .npy": _Archive(_plain(), "refuse", damage=lambda content: _npy()),
    }
)


def _npy() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros((3, 1, 4, 4), np.float32))
    return buffer.getvalue()


def write_archive(
    folder: Path, name: str, pixels: Bytes, labels: Labels, classes: int, draws: Draws
) -> Source:
    """Write 8-bit pixels (N, C, H, W) and labels (N,) as `data.npz`."""
    kind = ARCHIVES[name]
    arrays = kind.arrays(pixels, labels, classes)
    buffer = io.BytesIO()
    save = np.savez_compressed if draws.chance(0.5) else np.savez
    save(buffer, **arrays)
    (folder / "data.npz").write_bytes(kind.damage(buffer.getvalue()))
    images = _meant(arrays.get("images"), pixels, kind)
    return Source(
        {"npz": "data.npz"},
        "data",
        kind.outcome,
        ((images, labels),),
        ("data.npz", "candidate"),
        kind.words,
    )


def _meant(array: npt.NDArray[Any] | None, pixels: Bytes, kind: _Archive) -> Images:
    """The images (N, C, H, W) in [0, 1] that an archive holds."""
    if kind.scale == 1:
        return (pixels > 127).astype(np.float32)
    if kind.scale == -1 and array is not None:
        return array.astype(np.float32)
    return (pixels / np.float32(255)).astype(np.float32)


FOLDERS: Mapping[str, Outcome] = MappingProxyType(
    {
        "RGB": "accept",
        "L": "accept",
        "1": "accept",
        "P": "accept",
        "opaque RGBA": "accept",
        "transparent RGBA": "either",
        "LA": "either",
        "I;16": "either",
        "16-bit RGB": "either",
        "I": "either",
        "F": "either",
        "CMYK": "either",
        "YCbCr": "either",
        "bmp": "accept",
        "ppm": "accept",
        "webp": "accept",
        "tiff": "accept",
        "gif": "either",
        "upper-case ending": "accept",
        "endings that lie": "accept",
        "numeric classes": "accept",
        "numeric classes from 1": "accept",
        "padded numeric classes": "accept",
        "class1, class10, class2": "accept",
        "unicode classes": "accept",
        "classes with spaces": "accept",
        "hidden folder": "either",
        "empty class": "either",
        "other files": "accept",
        "nested": "either",
        "one damaged": "refuse",
        "one truncated": "refuse",
        "one empty": "refuse",
        "one of another size": "refuse",
        "no classes": "refuse",
        "no folder": "refuse",
        "a file": "refuse",
        "nothing": "refuse",
        "links": "accept",
        "a broken link": "either",
    }
)
"""Ways to keep pixels as a folder of images, and what must come of each."""


def write_folder(
    folder: Path, name: str, pixels: Bytes, labels: Labels, classes: int, draws: Draws
) -> Source:
    """Write 8-bit pixels (N, 3, H, W) and labels (N,) as a folder of images `photos`.

    The data set's order is that of classes, and of file names within a class.
    """
    root = folder / "photos"
    names = _class_names(name, classes)
    order = np.argsort(labels, kind="stable")
    pixels, labels = pixels[order], labels[order]
    shown = pixels
    written: list[Path] = []
    for number, (image, label) in enumerate(zip(pixels, labels, strict=True)):
        place = root / names[label]
        if name == "nested":
            place = place / "inner"
        place.mkdir(parents=True, exist_ok=True)
        written.append(_write_image(place / f"{number:03d}", name, image, number))
    if name in ("L", "I;16", "F", "I", "LA", "P", "gif"):
        shown = _gray(pixels)
    elif name == "1":
        shown = np.where(_gray(pixels) > 127, 255, 0)
    elif name in ("CMYK", "YCbCr"):
        shown = _converted(pixels, name)
    images = (shown / np.float32(255)).astype(np.float32)
    readings = [(images, labels)]
    if name == "transparent RGBA":
        alpha = _alpha(len(pixels), pixels.shape[-2:])
        opacity = alpha[:, None] / np.float32(255)
        readings = [(images * opacity, labels)]
    if name == "class1, class10, class2":
        by_text = np.argsort(np.argsort(names)).astype(np.int64)
        again = np.argsort(by_text[labels], kind="stable")
        readings.append((images[again], by_text[labels][again]))
    _disturb(root, name, written, draws)
    at_fault = written[len(written) // 2]
    names_of_refusal = (
        (at_fault.name, "photos") if FOLDERS[name] != "accept" else ("photos", "candidate")
    )
    if name.startswith("one "):
        names_of_refusal = (at_fault.name,)
    return Source({"folder": "photos"}, "photos", FOLDERS[name], tuple(readings), names_of_refusal)


def _converted(pixels: Bytes, mode: str) -> Bytes:
    """Colours (N, 3, H, W) after they were kept in another mode."""
    images = [Image.fromarray(each.transpose(1, 2, 0), "RGB") for each in pixels]
    back = [np.asarray(each.convert(mode).convert("RGB")) for each in images]
    return np.stack(back).transpose(0, 3, 1, 2)


def _class_names(name: str, classes: int) -> list[str]:
    """In the order of their labels."""
    numbers = range(classes)
    if name == "numeric classes":
        return [str(number) for number in numbers]
    if name == "numeric classes from 1":
        return [str(number + 1) for number in numbers]
    if name == "padded numeric classes":
        return [f"{number:03d}" for number in numbers]
    if name == "class1, class10, class2":
        return [f"class{number + 1}" for number in numbers]
    if name == "unicode classes":
        return sorted(
            ["Äpfel", "été", "日本", "🚗", "ß", "ñu", "øl", "zwölf", "ю", "я", "ё", "ж"][:classes]
        )
    if name == "classes with spaces":
        return [f"a {chr(97 + number)} b" for number in numbers]
    return [chr(97 + number) * 2 for number in numbers]


def _gray(pixels: Bytes) -> Bytes:
    """The first channel in place of all three."""
    return np.repeat(pixels[:, :1], 3, axis=1)


def _alpha(n: int, size: tuple[int, ...]) -> Bytes:
    made: Bytes = np.random.default_rng(3).integers(0, 256, (n, *size)).astype(np.uint8)
    return made


def _write_image(stem: Path, name: str, image: Bytes, number: int) -> Path:
    """Write one image (3, H, W) of 8 bits; returns its path."""
    color = np.ascontiguousarray(image.transpose(1, 2, 0))
    gray = np.ascontiguousarray(image[0])
    path = stem.with_suffix(".png")
    if name == "L":
        Image.fromarray(gray, "L").save(path)
    elif name == "1":
        Image.fromarray(np.where(gray > 127, 255, 0).astype(np.uint8), "L").convert("1").save(path)
    elif name in ("P", "gif"):
        made = Image.fromarray(gray, "P")
        made.putpalette([value for level in range(256) for value in 3 * [level]])
        path = path.with_suffix(".gif") if name == "gif" else path
        made.save(path)
    elif name == "opaque RGBA":
        alpha = np.full((*gray.shape, 1), 255, np.uint8)
        Image.fromarray(np.concatenate([color, alpha], axis=2), "RGBA").save(path)
    elif name == "transparent RGBA":
        alpha = _alpha(number + 1, gray.shape)[number][..., None]
        Image.fromarray(np.concatenate([color, alpha], axis=2), "RGBA").save(path)
    elif name == "LA":
        alpha = np.full_like(gray, 255)
        Image.fromarray(np.stack([gray, alpha], axis=2), "LA").save(path)
    elif name == "I;16":
        Image.fromarray(gray.astype(np.uint16) * 257).save(path)
    elif name == "16-bit RGB":
        path = _write_ppm16(path.with_suffix(".ppm"), color)
    elif name == "I":
        path = path.with_suffix(".tif")
        Image.fromarray(gray.astype(np.int32), "I").save(path)
    elif name == "F":
        path = path.with_suffix(".tif")
        Image.fromarray(gray.astype(np.float32) / 255, "F").save(path)
    elif name in ("CMYK", "YCbCr"):
        path = path.with_suffix(".tif")
        Image.fromarray(color, "RGB").convert(name).save(path)
    elif name in ("bmp", "ppm", "tiff", "webp"):
        path = path.with_suffix(f".{name}")
        options = {"lossless": True} if name == "webp" else {}
        Image.fromarray(color, "RGB").save(path, **options)
    elif name == "upper-case ending":
        Image.fromarray(color, "RGB").save(path)
        path = path.rename(path.with_suffix(".PNG"))
    elif name == "endings that lie":
        Image.fromarray(color, "RGB").save(path)
        path = path.rename(path.with_suffix(".jpg"))
    else:
        Image.fromarray(color, "RGB").save(path)
    return path


def _write_ppm16(path: Path, color: Bytes) -> Path:
    height, width, _ = color.shape
    deep = (color.astype(np.uint16) * 257).astype(">u2")
    path.write_bytes(f"P6\n{width} {height}\n65535\n".encode() + deep.tobytes())
    return path


def _disturb(root: Path, name: str, written: list[Path], draws: Draws) -> None:
    """What is beside the images, or wrong with one of them."""
    at_fault = written[len(written) // 2]
    if name == "one damaged":
        at_fault.write_bytes(b"no image at all")
    elif name == "one truncated":
        at_fault.write_bytes(at_fault.read_bytes()[:-30])
    elif name == "one empty":
        at_fault.write_bytes(b"")
    elif name == "one of another size":
        Image.new("RGB", (9, 9)).save(at_fault)
    elif name == "hidden folder":
        (root / ".ipynb_checkpoints").mkdir()
        if draws.chance(0.5):
            Image.new("RGB", (4, 4)).save(root / ".ipynb_checkpoints" / "x.png")
    elif name == "empty class":
        (root / "between").mkdir()
    elif name == "other files":
        (root / "README.txt").write_text("mine")
        (root / ".DS_Store").write_bytes(b"\0\1")
        (at_fault.parent / "Thumbs.db").write_bytes(b"\0")
        (at_fault.parent / "notes.txt").write_text("x")
    elif name == "links":
        target = root.parent / f"elsewhere{at_fault.suffix}"
        at_fault.rename(target)
        at_fault.symlink_to(target)
    elif name == "a broken link":
        at_fault.unlink()
        at_fault.symlink_to(root.parent / "nowhere.png")
    elif name == "no classes":
        for path in written:
            path.rename(root / path.name)
        for folder in [each for each in root.iterdir() if each.is_dir()]:
            folder.rmdir()
    elif name in ("no folder", "a file", "nothing"):
        root.rename(root.parent / "moved-away")
        if name == "a file":
            root.write_text("photos")
        elif name == "nothing":
            root.mkdir()
