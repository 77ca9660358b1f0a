"""Blocks and witnesses as arrays, and back, bit for bit."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, cast, get_args, get_type_hints

import numpy as np

from bench.store.records import Block, ImageArray, Witnesses

BlockType = TypeVar("BlockType", bound=Block)


def block_arrays(block: Block) -> dict[str, Any]:
    """Return a block as named arrays; `read_block` reads them back."""
    arrays: dict[str, Any] = {
        "seconds": np.float64(block.seconds),
        "record": np.array(json.dumps(dict(block.record))),
    }
    for part in _parts(type(block)):
        records = getattr(block, part)
        if records is not None:
            arrays |= {f"{part}.{name}": value for name, value in vars(records).items()}
    return arrays


def read_block(path: Path, kind: type[BlockType]) -> BlockType:
    """Return the block that a file of `block_arrays` holds."""
    with np.load(path, allow_pickle=False) as archive:
        return block_of({key: archive[key] for key in archive.files}, path.stem, kind)


def block_of(arrays: Mapping[str, Any], key: str, kind: type[BlockType]) -> BlockType:
    """Return the block called `key` of which `block_arrays` made named arrays."""
    parts = {}
    for part, records in _parts(kind).items():
        names = [field.name for field in fields(records)]
        if f"{part}.{names[0]}" in arrays:
            parts[part] = records(**{name: arrays[f"{part}.{name}"] for name in names})
    return kind(
        key=key,
        seconds=float(arrays["seconds"]),
        record=json.loads(str(arrays["record"])),
        **parts,
    )


def _parts(kind: type[Block]) -> dict[str, type[Any]]:
    """Return the types of the array records that a block of this type may have, by name."""
    parts = {}
    for name, annotation in get_type_hints(kind).items():
        types = [each for each in get_args(annotation) or (annotation,) if is_dataclass(each)]
        if types:
            parts[name] = cast(type[Any], types[0])
    return parts


def pack_witnesses(witnesses: Witnesses, clean_images: ImageArray) -> bytes:
    """Return witnesses as the content of an `.npz` file, as differences to `clean_images`."""
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        index=witnesses.index,
        attack=witnesses.attack,
        prediction=witnesses.prediction,
        difference=difference(clean_images, witnesses.images),
    )
    return buffer.getvalue()


def difference(clean: ImageArray, images: ImageArray) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return the difference of bit patterns, which is exact and compresses well.

    The four bytes of each difference are stored in separate planes, because the high bytes are
    mostly equal.
    """
    bits = images.view(np.int32) - clean.view(np.int32)
    return np.ascontiguousarray(np.moveaxis(bits[..., None].view(np.uint8), -1, 0))


def apply_difference(clean: ImageArray, planes: Any) -> ImageArray:
    """Return the images of which `difference` was taken."""
    bits = np.ascontiguousarray(np.moveaxis(planes, 0, -1)).view(np.int32)[..., 0]
    return (np.ascontiguousarray(clean).view(np.int32) + bits).view(np.float32)
