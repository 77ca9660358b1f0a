"""Libraries that some sources need, and downloads that fail."""

from __future__ import annotations

import importlib
from types import ModuleType

from bench.errors import InputError, Unavailable

EXTRAS = {"transformers": "hf", "onnx2torch": "onnx", "onnx": "onnx"}
"""The extra of this package that brings a library."""
LONGEST_REASON = 300


def required(library: str, name: str) -> ModuleType:
    """Import a library that a candidate needs.

    Args:
        name: of the candidate, for the message.

    Raises:
        InputError: it is not installed; the message says how to install it.
    """
    top = library.partition(".")[0]
    try:
        return importlib.import_module(library)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != top:
            raise InputError(f"{name}: {library} cannot be imported: {error}") from error
        wanted = f"'tradeoff-bench[{EXTRAS[top]}]'" if top in EXTRAS else top
        raise InputError(
            f"{name}: needs {top}, which is not installed; install it by `pip install {wanted}`"
        ) from error


def unavailable(name: str, what: str, error: BaseException) -> Unavailable:
    """Return the error for a download that failed, in one line."""
    return Unavailable(f"{name}: {what} cannot be downloaded: {in_one_line(error)}")


def in_one_line(error: BaseException) -> str:
    """Return an error's kind and text in one line of limited length."""
    text = " ".join(str(error).split())
    short = text if len(text) <= LONGEST_REASON else f"{text[:LONGEST_REASON]}..."
    return f"{type(error).__name__}: {short}" if short else type(error).__name__
