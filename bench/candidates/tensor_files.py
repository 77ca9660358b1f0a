"""Files with tensors, told apart by their content and read without running code from them."""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from bench.errors import InputError

HEAD_BYTES = 512
TAR_MAGIC = slice(257, 262)
KINDS: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "a Git LFS pointer; fetch the file itself by `git lfs pull`"),
    (b"\x1f\x8b", "a file packed by gzip; unpack it by `gunzip`"),
    (b"BZh", "a file packed by bzip2; unpack it by `bunzip2`"),
    (b"\xfd7zXZ\x00", "a file packed by xz; unpack it by `unxz`"),
    (b"\x28\xb5\x2f\xfd", "a file packed by zstd; unpack it by `unzstd`"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it"),
    (b"Rar!", "a RAR archive; unpack it"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras writes it; save PyTorch's tensors"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GGUF", "a GGUF file; save PyTorch's tensors"),
)
"""What files are known by that are none of ours: their first bytes, what they are, what to do."""

DATA_ONLY = (
    "argparse.Namespace",
    "types.SimpleNamespace",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray._reconstruct",
    "numpy.dtype",
    "numpy.ndarray",
    *(f"numpy.{name}" for name in ("float64", "float32", "int64", "int32", "bool_")),
    *(
        f"numpy.dtypes.{name}DType"
        for name in ("Float64", "Float32", "Float16", "Int64", "Int32", "UInt8", "Bool")
    ),
    *(
        f"pathlib{module}.{name}"
        for module in ("", "._local")
        for name in ("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath")
    ),
    *(f"datetime.{name}" for name in ("datetime", "date", "timedelta")),
)
"""Kinds of values beside the tensors of a checkpoint, such as its options and its best accuracy.
They are skipped: `Skipped` replaces each, so that none of their code is ever called."""


LATER_PROTOCOLS = (66, 67, 140, 148, 149)
"""Operations of pickle's protocols 3 and 4, which weights_only does not know."""


class Skipped:
    """A value in a file that is no tensor and was not read."""

    def __new__(cls, *_: object, **__: object) -> Skipped:
        """Ignore the arguments."""
        return super().__new__(cls)

    def __init__(self, *_: object, **__: object) -> None:
        """Ignore the arguments."""

    def __setstate__(self, _: object) -> None:
        """Ignore the state."""


def read_tensor_file(path: Path, what: str) -> Any:
    """Return what a file holds, on the CPU: a tensor, or mappings and sequences with tensors.

    The content decides, not the ending: a safetensors file, one by `torch.save` in its zip or its
    older form, or `.npy` and `.npz` arrays without pickled objects.

    Args:
        what: is expected in it, as messages call it: "weights" or "images".

    Raises:
        InputError: it cannot be read, is of another kind (which one, and what to do), is damaged,
            or holds values that could run code when they are loaded (how to convert it).
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
        if problem := _problem(head):
            raise InputError(f"{path}: expected {what}, got {problem}")
        return _read(path, head, size, what)
    except InputError:
        raise
    except OSError as error:
        reason = error.strerror or _line(error)
        raise InputError(f"{path}: cannot be read as {what}: {reason}") from error
    except pickle.UnpicklingError as error:
        raise InputError(_unpickling(path, what, str(error))) from error
    except ValueError as error:
        if "allow_pickle" in str(error):
            raise InputError(
                f"{path}: refused, it holds Python objects, which run code when they are loaded; "
                "save arrays of numbers alone"
            ) from error
        raise InputError(_damaged(path, what, error)) from error
    except Exception as error:  # zipfile, numpy, safetensors and torch raise many kinds
        raise InputError(_damaged(path, what, error)) from error


def _problem(head: bytes) -> str:
    """Name a file that holds no tensors by its first bytes; "" for others."""
    if not head:
        return "an empty file"
    for magic, kind in KINDS:
        if head.startswith(magic):
            return kind
    if head[TAR_MAGIC] == b"ustar":
        return "a tar archive; unpack it by `tar xf` and name the file inside"
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "a web page: its download failed; download the file itself"
    if not head.strip(b"\0"):
        return "a file of zeros: it is damaged, perhaps by a full disk"
    return ""


def _read(path: Path, head: bytes, size: int, what: str) -> Any:
    if head.startswith(b"PK\x03\x04"):
        names = zipfile.ZipFile(path).namelist()
        if names and all(name.endswith(".npy") for name in names):
            with np.load(path, allow_pickle=False) as archive:
                return {name: _tensor(archive[name]) for name in archive.files}
        if any(name.endswith("/constants.pkl") for name in names):
            raise InputError(
                f"{path}: expected {what}, got a TorchScript archive; convert it by\n"
                f"    module = torch.jit.load({path.name!r})\n"
                f"    torch.save(module.state_dict(), {_converted(path)!r})"
            )
        if not any(name == "data.pkl" or name.endswith("/data.pkl") for name in names):
            raise InputError(
                f"{path}: expected {what}, got a zip archive of {', '.join(names[:3]) or 'nothing'}"
                f"{', ...' if len(names) > 3 else ''}; unpack it and name the file inside"
            )
        return _torch_load(path)
    if head.startswith(b"\x93NUMPY"):
        return _tensor(np.load(path, allow_pickle=False))
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= size:
        return load_file(path)
    if head[:1] == b"\x80":  # pickles, as torch.save wrote before its zip format
        return _torch_load(path)
    raise InputError(
        f"{path}: cannot be read as {what}: expected a file by torch.save or safetensors, got one "
        f"that begins with {head[:12]!r}"
    )


def _tensor(array: np.ndarray[Any, Any]) -> Tensor | Skipped:
    """Return numbers as a tensor in this machine's byte order; skip anything else."""
    if array.dtype.kind not in "biufc":
        return Skipped()
    return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("=")))


def _torch_load(path: Path) -> Any:
    skipped: list[Any] = [(Skipped, name) for name in DATA_ONLY]
    with warnings.catch_warnings(), torch.serialization.safe_globals(skipped):
        warnings.simplefilter("ignore")  # the warnings are for the author of the file
        return torch.load(path, map_location="cpu", weights_only=True)


def _unpickling(path: Path, what: str, text: str) -> str:
    """Say why a file was not unpickled, without torch's advice to load it nevertheless."""
    reason = text.rpartition("WeightsUnpickler error:")[2].strip().partition("\n")[0][:160]
    found = re.search(r"GLOBAL (\S+)", text)
    if found or re.search("[Cc]an only (build|create)|reduce", reason):
        held = f" ({found[1]})" if found else ""
        problem = f"refused, it holds more than tensors{held}, which runs code when it is loaded"
    elif re.search(rf"operand ({'|'.join(map(str, LATER_PROTOCOLS))})$", reason):
        problem = (
            f"cannot be read as {what} without trusting it, since it is pickled in another way "
        )
        problem += "than torch.save does by default"
    else:
        return f"{path}: damaged, it cannot be read as {what}: {reason or 'no pickle'}"
    saved, name = ("module.state_dict()", "module") if what == "weights" else (what, what)
    return (
        f"{path}: {problem}. If you trust it, save {saved} alone:\n"
        f"    {name} = torch.load({path.name!r}, weights_only=False)\n"
        f"    torch.save({saved}, {_converted(path)!r})"
    )


def _damaged(path: Path, what: str, error: Exception) -> str:
    return f"{path}: damaged, it cannot be read as {what}: {type(error).__name__}: {_line(error)}"


def _converted(path: Path) -> str:
    return f"{path.name.partition('.')[0] or 'converted'}-tensors.pt"


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:160]
