"""The errors that reach a user: one clear line, and the exit code that goes with it."""

from __future__ import annotations

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
"""What foreign code may raise: anything, and a call of sys.exit is no reason to end here."""


def raised(error: BaseException) -> str:
    """Return what foreign code raised, in one line, with the file and the line where it did.

    Of code that is not installed as a package the innermost place is named: where a library
    raised, the call that it was asked by says more.
    """
    name = type(error).__name__
    if isinstance(error, SyntaxError):  # its text names the place once more
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


def is_in_library(file: str) -> bool:
    """Return whether a file of code belongs to Python or to an installed package.

    Environments may lie on top of each other, so that packages come from several places.
    """
    is_package = not {"site-packages", "dist-packages"}.isdisjoint(Path(file).parts)
    return is_package or Path(file).is_relative_to(sysconfig.get_path("stdlib"))
