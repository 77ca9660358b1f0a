"""The errors that users see: one clear line, and an exit code."""

from __future__ import annotations

import errno
import os
import sysconfig
import traceback
from pathlib import Path


class BenchError(Exception):
    """An error with a message for the user: what was expected, what came, what to do."""


class InputError(BenchError):
    """Wrong usage or wrong input; nothing was run. Exit code 2."""


class Unavailable(BenchError):
    """A candidate cannot be evaluated here, e.g. its weights cannot be downloaded. Exit code 3."""


class EvaluationError(BenchError):
    """An evaluation started and failed. Exit code 1."""


FOREIGN_ERRORS = (Exception, SystemExit)
"""What foreign code may raise: any exception, and SystemExit, which must not end the program."""


FULL = (errno.ENOSPC, errno.EDQUOT)
"""Error numbers of a disk, or of a user's share of one, that has no room left."""


def full_disk(error: OSError) -> str:
    """Describe a write to a full disk: where, and what to do."""
    where = error.filename or "a file"
    reason = os.strerror(error.errno or errno.ENOSPC)
    return f"{where}: cannot be written: {reason}; free some space, then the same command goes on"


def raised(error: BaseException) -> str:
    """Describe an error of foreign code in one line, with the file and the line that raised it.

    The line named is the innermost one outside installed packages: if a library raised the error,
    the call of the library says more than the line inside it.
    """
    name = type(error).__name__
    if isinstance(error, SyntaxError):  # its text repeats the file and the line
        file = Path(error.filename or "unknown file").name
        return f"{name}: {error.msg} ({file}, line {error.lineno})"
    frames = traceback.extract_tb(error.__traceback__)
    own = [
        frame
        for frame in frames
        if not (frame.filename.startswith("<") or is_in_library(frame.filename))
    ]
    where = (own or frames)[-1:]
    place = "".join(f" ({Path(frame.filename).name}, line {frame.lineno})" for frame in where)
    text = " ".join(str(error).split()) or "no reason given"
    return f"{name}: {text}{place}"


def briefly(error: BaseException) -> str:
    """Return an error's class and the first 120 characters of its text, if it has one, in one line.

    For records of what does without something that failed, such as a compiler.
    """
    text = " ".join(str(error).split())[:120]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def is_in_library(file: str) -> bool:
    """Return whether a file of code belongs to Python or to an installed package.

    Environments can be stacked, so that packages lie in several folders.
    """
    is_package = not {"site-packages", "dist-packages"}.isdisjoint(Path(file).parts)
    return is_package or Path(file).is_relative_to(sysconfig.get_path("stdlib"))
