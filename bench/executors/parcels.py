"""Blocks and samples as bytes between processes: arrays without pickle."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np
import torch

from bench.errors import EvaluationError
from bench.store.packing import block_arrays, block_of
from bench.store.records import AttackBlock, Block, CertificationBlock, MeasurementBlock, SweepBlock

_KINDS: dict[str, type[Block]] = {
    kind.__name__: kind for kind in (AttackBlock, CertificationBlock, MeasurementBlock, SweepBlock)
}


def pack_blocks(blocks: list[Block], facts: Mapping[str, Any]) -> bytes:
    """Return blocks, and plain facts about them, as one archive."""
    arrays: dict[str, Any] = {}
    head = []
    for number, block in enumerate(blocks):
        head.append((type(block).__name__, block.key))
        arrays |= {f"{number}.{name}": value for name, value in block_arrays(block).items()}
    arrays["head"] = np.array(json.dumps({"blocks": head, "facts": dict(facts)}))
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def unpack_blocks(data: bytes) -> tuple[list[Block], dict[str, Any]]:
    """Return the blocks and the facts of an archive; nothing in it is run.

    Raises:
        EvaluationError: it holds anything but arrays, or blocks of a kind that is not known.
    """
    try:
        return _unpacked(data)
    except Exception as error:  # NumPy and zipfile raise many kinds
        raise EvaluationError(
            f"expected an archive of blocks from a worker, got {len(data)} bytes that are none: "
            f"{error}"
        ) from error


def _unpacked(data: bytes) -> tuple[list[Block], dict[str, Any]]:
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        head = json.loads(str(archive["head"]))
        blocks = []
        for number, (kind, key) in enumerate(head["blocks"]):
            prefix = f"{number}."
            arrays = {
                name.removeprefix(prefix): archive[name]
                for name in archive.files
                if name.startswith(prefix)
            }
            if kind not in _KINDS:
                raise ValueError(f"expected blocks of {', '.join(_KINDS)}; got {kind!r}")
            blocks.append(block_of(arrays, key, _KINDS[kind]))
    return blocks, head["facts"]


def pack_samples(task: Any) -> dict[str, Any]:
    """Return a task's samples as arrays by name."""
    return {name: getattr(task, name).numpy() for name in ("images", "labels", "indices")}


def with_samples(task: Any, samples: Mapping[str, Any]) -> Any:
    """Return a task with samples of `pack_samples`."""
    from dataclasses import replace

    # Arrays that come from a shared memory cannot be written; a candidate might write.
    tensors = {name: torch.from_numpy(np.array(value)) for name, value in samples.items()}
    return replace(
        task, **{field.name: tensors[field.name] for field in fields(task) if field.name in tensors}
    )
