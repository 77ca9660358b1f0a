"""Read TorchScript's modules and functions."""

from __future__ import annotations

import io
import itertools
import re
import zipfile
from typing import Any

import torch

from bench.candidates.object_digest.networks import read_hooks
from bench.candidates.object_digest.walk import PACKAGE_NAME, Readers, Walk


def _script(walk: Walk, value: Any, name: str) -> None:
    """Visit TorchScript: its code, constants and attributes, as they would be saved."""
    buffer = io.BytesIO()
    if isinstance(value, torch.jit.ScriptModule):
        torch.jit.save(value, buffer)
        read_hooks(walk, vars(value), name)
    else:
        buffer.write(value.save_to_buffer())
    with zipfile.ZipFile(buffer) as archive:
        for path, entry in sorted(
            (_unmangled(entry.filename.partition("/")[2].encode()), entry)
            for entry in archive.infolist()
            if _counts(entry.filename)
        ):
            content = archive.read(entry)
            if path.endswith((b".py", b".pkl")):
                content = _unmangled(content)
            if path.endswith(b".py"):
                content = _in_one_order(content)
            walk.token("script", path)
            walk.token("content", content)


def _counts(path: str) -> bool:
    """Return whether a file in a TorchScript archive decides what the module does."""
    name = path.partition("/")[2]
    return name.startswith(("code/", "constants", "data")) and not name.endswith(".debug_pkl")


def _unmangled(content: bytes) -> bytes:
    """Return TorchScript's names of classes without the process's running number."""
    content = re.sub(rb"[./]?___torch_mangle_\d+", b"", content)
    return re.sub(PACKAGE_NAME.pattern.encode(), b"<submission>", content)


def _in_one_order(code: bytes) -> bytes:
    """Sort a class's constants in TorchScript's code: they come in the order of a set."""
    parts = itertools.groupby(code.splitlines(), key=lambda line: b" : Final[" in line)
    lines = (line for is_set, part in parts for line in (sorted(part) if is_set else part))
    return b"\n".join(lines)


READERS: Readers = (((torch.jit.ScriptModule, torch.jit.ScriptFunction), _script),)
