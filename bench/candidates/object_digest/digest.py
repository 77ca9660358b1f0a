"""Digest an object with the readers of all kinds of objects."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from bench.candidates.object_digest import code, containers, networks, objects, tensors, torchscript
from bench.candidates.object_digest.walk import Walk

MOST_NESTED = 20_000
"""Nested Python calls that a walk may make: deep structures need more than the usual limit."""

# The first reader whose types fit reads an object: an enumeration may be a number too, and
# TorchScript is a PyTorch module.
READERS = (
    *objects.READERS,
    *torchscript.READERS,
    *networks.READERS,
    *tensors.READERS,
    *containers.READERS,
    *code.READERS,
)


@dataclass(frozen=True)
class ObjectDigest:
    """What a walk found.

    Attributes:
        sha256: digest of all that was found.
        undigested: what could not be digested, a line each with its dotted name; empty: nothing.
    """

    sha256: str
    undigested: tuple[str, ...]


def object_digest(
    value: object,
    known: Sequence[tuple[object, str]] = (),
    folder: Path | None = None,
) -> ObjectDigest:
    """Return the digest of a module, or of anything else, and of all that it refers to.

    It is the same in another process, and after the same code built the same thing again. It must
    be taken before the first pass: a module may keep something of the images it has seen.

    Args:
        value: what to walk; nothing of it is called or changed.
        known: objects with digests of their own, which stand for them.
        folder: of the submission; texts that name it are the same wherever it lies.
    """
    walk = Walk(_read, known, folder)
    with _deep_calls():
        walk.visit(value, "")
        for name in ("_global_forward_pre_hooks", "_global_forward_hooks"):
            hooks = getattr(torch.nn.modules.module, name, {})
            if hooks:
                walk.visit(list(hooks.values()), f"torch.{name}")
    return ObjectDigest(walk.hexdigest(), tuple(walk.undigested.values()))


def _read(walk: Walk, value: object, name: str) -> None:
    """Read an object by the first reader for its type, or else as any other object."""
    for kinds, read in READERS:
        if isinstance(value, kinds):
            read(walk, value, name)
            return
    if code.is_annotation(value):
        code.read_annotation(walk, value, name)
    elif code.is_named_callable(value):
        code.read_callable(walk, value, name)
    else:
        objects.read_instance(walk, value, name)


@contextlib.contextmanager
def _deep_calls() -> Iterator[None]:
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, MOST_NESTED))
    try:
        yield
    finally:
        sys.setrecursionlimit(before)
