"""The words of errors that reach a user of the Python interface."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from bench.errors import FOREIGN_ERRORS, BenchError, EvaluationError, raised

_OPTION = re.compile(r"--([a-z][a-z-]*[a-z])")


@contextlib.contextmanager
def errors_in_python() -> Iterator[None]:
    """Name options in errors as Python does, and say in one line what a model raised.

    Raises:
        BenchError: of the same class, with `results_dir` for `--results-dir`; an EvaluationError
            for what foreign code raised, which is its cause.
    """
    try:
        yield
    except BenchError as error:
        text = _OPTION.sub(lambda match: match[1].replace("-", "_"), str(error))
        if text == str(error):
            raise
        raise type(error)(text) from error
    except FOREIGN_ERRORS as error:
        raise EvaluationError(f"failed: {raised(error)}") from error
